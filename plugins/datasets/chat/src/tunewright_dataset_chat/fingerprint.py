"""Digests of everything that prepared rows depend on: change any of it and the digest is another."""

import dataclasses
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.types import DataRequest
from tunewright_dataset_chat.source import WHERE, Source

if TYPE_CHECKING:
    from tunewright.run import Run

_PACKAGES = ("tunewright", "tunewright_hf", "tunewright_dataset_chat")  # ours: their files are looked at
_LIBRARIES = ("tokenizers", "transformers", "jinja2")
_CHANGES_ROWS = {"on_bad_row", "truncate"}  # of the dataset's options; the others say where and when, or come later


def settings(run: "Run", request: DataRequest, options: Any) -> dict[str, Any]:
    """What rows depend on besides their source, each under a name that people know."""
    template = run.plugin("template")
    return {
        "rows": request.rows,
        "max_length": request.max_length,
        "limit": request.limit,
        "template": digest([template.source, template.options.model_dump(), dataclasses.asdict(template.info)]),
        "tokenizer": _tokenizer(request.loaded.tokenizer),
        **options.model_dump(include=_CHANGES_ROWS),
    }


def entry(source: Source) -> dict[str, Any]:
    """How a source is read, wherever it is: the names and places of files do not matter."""
    how = source.entry.model_dump(mode="json", exclude=WHERE | {"weight"})
    return {**how, "format": source.format, "format_options": source.format_options, "brought_by": source.distribution}


def code(packages: set[str]) -> str:
    """Of the Python files of our packages, of `packages` (those that bring formats), and of the libraries' versions."""
    files = {}
    for name in sorted({*_PACKAGES, *packages}):
        folder = Path(sys.modules[name].__file__ or "").parent
        for file in sorted(folder.rglob("*.py")):
            files[f"{name}/{file.relative_to(folder).as_posix()}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digest([files, {name: version(name) for name in _LIBRARIES}])


def digest(value: Any) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _tokenizer(tokenizer: Any) -> str:
    """What the tokenizer does with text, and its special tokens. A slow one shows its vocabulary only."""
    fast = tokenizer.is_fast
    work = tokenizer.backend_tokenizer.to_str() if fast else sorted(tokenizer.get_vocab().items())
    return digest([type(tokenizer).__name__, work, tokenizer.special_tokens_map, tokenizer.chat_template])
