"""docs/reference/hooks.md, from the source of hookspecs.py and types.py."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from tunewright import hookspecs
from tunewright.kinds import kinds

#: title → module of the kernel whose classes are listed
PAGES = {
    "Base classes": "plugin",
    "Base classes of data": "plugin_data",
    "The run": "run_context",
    "Requests and results": "types",
    "Templates": "rendering",
    "Embeddings": "embedding",
    "Rows": "rows",
    "Inference": "inference",
    "Launching": "launch",
}


def hooks_page(note: str) -> str:
    source = inspect.getsource(hookspecs)
    parts = [f"# Hooks\n\n{note}{ast.get_docstring(ast.parse(source))}\n"]
    parts += sections(source, lambda node: isinstance(node, ast.FunctionDef), hook)
    for name in dict.fromkeys(kind.specs for kind in kinds().values()):
        if name != hookspecs.__name__:
            source = inspect.getsource(importlib.import_module(name))
            parts.append(f"## {(ast.get_docstring(ast.parse(source)) or '').rstrip('.')}\n")
            parts += sections(source, lambda node: isinstance(node, ast.FunctionDef), hook)
    for title, name in PAGES.items():
        module = importlib.import_module(f"tunewright.{name}")
        source = inspect.getsource(module)
        parts.append(f"# {title}\n\n{ast.get_docstring(ast.parse(source))}\n")
        render = partial(type_, source)
        parts += sections(source, lambda node: isinstance(node, ast.ClassDef), render)
    return "\n".join(parts)


def sections(source: str, wanted: Any, render: Any) -> Iterator[str]:
    """The banners of a source file (`# ---- title ---`) as headings, with the wanted definitions
    below them."""
    banners = {
        n: m[1]
        for n, line in enumerate(source.splitlines(), 1)
        if (m := re.match(r"# -{4} (.+?) -+$", line))
    }
    for node in ast.parse(source).body:
        for line in [n for n in banners if n < node.lineno]:
            yield f"## {banners.pop(line).capitalize()}\n"
        if wanted(node):
            yield render(node)


def hook(node: ast.FunctionDef) -> str:
    arguments = ", ".join(f"{a.arg}: {annotation(a.annotation)}" for a in node.args.args)
    signature = f"{node.name}({arguments}) -> {annotation(node.returns)}"
    return f"### {node.name}\n\n```python\n{signature}\n```\n\n{ast.get_docstring(node)}\n"


def annotation(node: ast.expr | None) -> str:
    return re.sub(r"\b(types|inference)\.", "", ast.unparse(node).strip("'\"")) if node else ""


def type_(source: str, node: ast.ClassDef) -> str:
    body = "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])
    return f"### {node.name}\n\n```python\n{body}\n```\n"
