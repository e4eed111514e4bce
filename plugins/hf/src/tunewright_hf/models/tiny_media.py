"""Processors and configs of tiny twins with media."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import transformers

from tunewright_hf.models.libraries import check_libraries

if TYPE_CHECKING:
    from tunewright_hf.models.tiny import TinyModelSpec

__all__ = ["composed_config", "processor"]


def composed_config(
    twin: "TinyModelSpec", tokenizer: Any, text_config: dict[str, Any], hidden_size: int
) -> Any:
    """Config of a model around a language model. hidden_size: of that."""
    known = tokenizer.get_vocab()
    ids = {name: known[token] for name, token in twin.token_ids.items()}
    parts = _sized(twin.parts, hidden_size)
    kind = transformers.CONFIG_MAPPING[twin.model_type]
    return kind(text_config=text_config, **parts, **ids)


def _sized(value: Any, hidden_size: int) -> Any:
    """The value, with the number in place of each "hidden_size" in it."""
    if isinstance(value, Mapping):
        return {name: _sized(each, hidden_size) for name, each in value.items()}
    return hidden_size if value == "hidden_size" else value


def processor(twin: "TinyModelSpec", tokenizer: Any) -> Any:
    """The twin's processor, around this tokenizer. Raises RunError if a library is missing."""
    check_libraries(f"tiny twin {twin.name}")

    def made(value: Any) -> Any:
        if not (isinstance(value, Mapping) and "class" in value):
            return value
        arguments = {name: made(each) for name, each in value.items() if name != "class"}
        return getattr(transformers, value["class"])(**arguments)

    return made({**twin.processor, "tokenizer": tokenizer})
