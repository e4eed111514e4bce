"""Digests of everything that prepared rows depend on."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunewright import registry
from tunewright.types import DataRequest, RunContext
from tunewright.urls import mask_url
from tunewright_dataset_chat.source import WHERE, Source

# our packages, whose files are part of the digest
_PACKAGES = (
    "tunewright",
    "tunewright_hf",
    "tunewright_dataset_chat",
)
_LIBRARIES = ("tokenizers", "transformers", "jinja2")
# options of the dataset that matter; the others concern place and time, or are applied later
_CHANGES_ROWS = {
    "on_bad_row",
    "on_unread",
    "truncate",
    "max_record_bytes",
}
# an accelerator that wraps one of these may change rows
_HOOKS = ("convert_rows", "format_template")


def settings(run: RunContext, request: DataRequest, options: Any) -> dict[str, Any]:
    """Settings that rows depend on besides their source, under names that users know."""
    template = run.plugin("template")
    return {
        "rows": request.rows,
        "max_length": request.max_length,
        "limit": request.limit,
        "prompts": [
            request.embedding.query_prompt,
            request.embedding.document_prompt,
            request.embedding.pair_prompt,
        ],
        "tools": request.tools,
        "template": digest(
            [template.source, template.options.model_dump(), dataclasses.asdict(template.info)]
        ),
        "tokenizer": _tokenizer(request.loaded.tokenizer),
        "processor": _processor(request.loaded.processor),
        "accelerators": [
            [f"{entry.distribution} {entry.version}", entry.name, options]
            for entry, options, _ in _wrapping(run)
        ],
        **options.model_dump(include=_CHANGES_ROWS),
    }


def written(entry: Any) -> str:
    """Digest of a source as written in the recipe, without the password in its URL."""
    return digest(
        {
            name: mask_url(value) if isinstance(value, str) else value
            for name, value in entry.model_dump(mode="json", exclude={"weight"}).items()
        }
    )


def entry(source: Source) -> dict[str, Any]:
    """Settings for reading a source, without the names and places of its files."""
    how = source.entry.model_dump(mode="json", exclude=WHERE | {"weight"})
    return {
        **how,
        "format": source.format,
        "format_options": source.format_options,
        "brought_by": source.distribution,
    }


def code(run: RunContext, source: Source) -> str:
    """Digest of the Python files of our packages and of the packages of template, format and
    accelerators, and of library versions."""
    plugins = [type(run.plugin("template")), *(plugin for _, _, plugin in _wrapping(run))]
    found = {
        *_PACKAGES,
        source.package,
        *(plugin.__module__.partition(".")[0] for plugin in plugins),
    } - {""}
    files = {name: sha256 for package in sorted(found) for name, sha256 in _files(package)}
    return digest([files, {name: version(name) for name in _LIBRARIES}])


def _wrapping(run: RunContext) -> Iterator[tuple[registry.Entry, dict[str, Any], Any]]:
    """Accelerators of the recipe that may change rows: entry, options, class."""
    for section in run.recipe.accelerators:
        entry = registry.find("accelerator", section.name)
        plugin = registry.load(entry)
        if any(hasattr(plugin, hook) for hook in _HOOKS):
            yield entry, section.options, plugin


def _files(package: str) -> Iterator[tuple[str, str]]:
    """Name and sha256 of each Python file of an imported package or single-file module."""
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


def _processor(processor: Any) -> str | None:
    """Digest of the options by which media are resized and cut into tiles; None: text only."""
    return digest(processor.to_json_string()) if processor else None


def _tokenizer(tokenizer: Any) -> str:
    """Digest of the tokenizer's behaviour and special tokens. A slow tokenizer gives only its
    vocabulary."""
    fast = tokenizer.is_fast
    work = tokenizer.backend_tokenizer.to_str() if fast else sorted(tokenizer.get_vocab().items())
    return digest(
        [type(tokenizer).__name__, work, tokenizer.special_tokens_map, tokenizer.chat_template]
    )
