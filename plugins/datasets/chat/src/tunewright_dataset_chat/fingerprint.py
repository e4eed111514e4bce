"""A digest of everything that the tokenised rows depend on: change any of it and the digest is another."""

import dataclasses
import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tunewright.types import DataRequest
from tunewright_dataset_chat.source import WHERE, Source

if TYPE_CHECKING:
    from tunewright.run import Run

_CODE = ("tunewright", "tunewright-hf", "tunewright-dataset-chat", "tokenizers", "transformers")


def of(run: "Run", request: DataRequest, options: Any, sources: list[Source]) -> str:
    """sha256 of the files' bytes and how they are read, template, tokenizer, lengths, options and versions.

    sources: read already, so that their formats are known. A file's name and place do not matter.
    """
    template = run.plugin("template")
    parts = {
        "sources": [_source(source) for source in sources],
        "rows": request.rows,
        "max_length": request.max_length,
        "limit": request.limit,
        "options": options.model_dump(),
        "template": [template.source, template.options.model_dump(), dataclasses.asdict(template.info)],
        "tokenizer": _tokenizer(request.loaded.tokenizer),
        "versions": {name: version(name) for name in _CODE},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _source(source: Source) -> dict[str, Any]:
    return {
        "group": source.place.rpartition(".")[0],
        "data": source.digests(),
        "read": source.entry.model_dump(exclude=WHERE),
        "format": [source.format, source.format_options],
        "brought_by": source.distribution,
    }


def _tokenizer(tokenizer: Any) -> list[Any]:
    """What the tokenizer does with text, and its special tokens. A slow one shows its vocabulary only."""
    fast = tokenizer.is_fast
    work = tokenizer.backend_tokenizer.to_str() if fast else sorted(tokenizer.get_vocab().items())
    return [type(tokenizer).__name__, work, tokenizer.special_tokens_map, tokenizer.chat_template]
