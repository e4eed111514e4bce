"""Digests of everything that prepared rows depend on: change any of it and the digest is
another."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import registry
from tunewright.types import DataRequest
from tunewright_dataset_chat import remote
from tunewright_dataset_chat.source import WHERE, Source

if TYPE_CHECKING:
    from tunewright.run import Run

_PACKAGES = (
    "tunewright",
    "tunewright_hf",
    "tunewright_dataset_chat",
)  # ours: their files are looked at
_LIBRARIES = ("tokenizers", "transformers", "jinja2")
_CHANGES_ROWS = {
    "on_bad_row",
    "on_unread",
    "truncate",
    "max_record_bytes",
}  # of the dataset's options; the others say where and when, or come later
_HOOKS = ("convert_rows", "format_template")  # an accelerator round one of these may change rows


def settings(run: "Run", request: DataRequest, options: Any) -> dict[str, Any]:
    """What rows depend on besides their source, each under a name that people know."""
    template = run.plugin("template")
    return {
        "rows": request.rows,
        "max_length": request.max_length,
        "limit": request.limit,
        "template": digest(
            [template.source, template.options.model_dump(), dataclasses.asdict(template.info)]
        ),
        "tokenizer": _tokenizer(request.loaded.tokenizer),
        "accelerators": [
            [f"{entry.distribution} {entry.version}", entry.name, options]
            for entry, options, _ in _wrapping(run)
        ],
        **options.model_dump(include=_CHANGES_ROWS),
    }


def written(entry: Any) -> str:
    """Of an entry as the recipe has it. A password in its URL does not count."""
    return digest(
        {
            name: remote.without_secrets(value) if isinstance(value, str) else value
            for name, value in entry.model_dump(mode="json", exclude={"weight"}).items()
        }
    )


def entry(source: Source) -> dict[str, Any]:
    """How a source is read, wherever it is: the names and places of files do not matter."""
    how = source.entry.model_dump(mode="json", exclude=WHERE | {"weight"})
    return {
        **how,
        "format": source.format,
        "format_options": source.format_options,
        "brought_by": source.distribution,
    }


def code(run: "Run", source: Source) -> str:
    """Of the Python files of our packages and of those that bring template, format and
    accelerators, and of the libraries' versions."""
    plugins = [type(run.plugin("template")), *(plugin for _, _, plugin in _wrapping(run))]
    found = {
        *_PACKAGES,
        source.package,
        *(plugin.__module__.partition(".")[0] for plugin in plugins),
    } - {""}
    files = {name: sha256 for package in sorted(found) for name, sha256 in _files(package)}
    return digest([files, {name: version(name) for name in _LIBRARIES}])


def _wrapping(run: "Run") -> Iterator[tuple[registry.Entry, dict[str, Any], Any]]:
    """The recipe's accelerators that may change rows: entry, options, class."""
    for section in run.recipe.accelerators:
        entry = registry.find("accelerator", section.name)
        plugin = registry.load(entry)
        if any(hasattr(plugin, hook) for hook in _HOOKS):
            yield entry, section.options, plugin


def _files(package: str) -> Iterator[tuple[str, str]]:
    """Name and sha256 of each Python file of an imported package, or of a module that is one
    file."""
    spec = sys.modules[package].__spec__
    assert spec
    for folder in map(Path, spec.submodule_search_locations or ()):
        for file in sorted(folder.rglob("*.py")):
            yield (
                f"{package}/{file.relative_to(folder).as_posix()}",
                hashlib.sha256(file.read_bytes()).hexdigest(),
            )
    if spec.submodule_search_locations is None and spec.origin:
        yield package, hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def digest(value: Any) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _tokenizer(tokenizer: Any) -> str:
    """What the tokenizer does with text, and its special tokens. A slow one shows its vocabulary
    only."""
    fast = tokenizer.is_fast
    work = tokenizer.backend_tokenizer.to_str() if fast else sorted(tokenizer.get_vocab().items())
    return digest(
        [type(tokenizer).__name__, work, tokenizer.special_tokens_map, tokenizer.chat_template]
    )
