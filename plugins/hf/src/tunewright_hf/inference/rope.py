"""RoPE whose frequencies depend on the longest row of a batch, and are kept on the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["RopeState", "unscaled_length"]

_KEPT = ("inv_freq", "max_seq_len_cached", "attention_scaling")


def unscaled_length(config: Any) -> int | None:
    """Tokens up to which the frequencies are the same for all rows; None: for any length.

    `dynamic` scales beyond max_position_embeddings, `longrope` beyond
    original_max_position_embeddings (transformers.modeling_rope_utils).
    """
    text = config.get_text_config(decoder=True)
    parameters = getattr(text, "rope_parameters", None) or {}
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    found = []
    for rope in each:
        kind = str(rope.get("rope_type", ""))
        if "dynamic" in kind:
            found.append(text.max_position_embeddings)
        elif kind == "longrope":
            found.append(
                rope.get("original_max_position_embeddings") or text.max_position_embeddings
            )
    return min(found, default=None)


class RopeState:
    """Frequencies that a model's dynamic RoPE keeps from pass to pass: each group has its own."""

    def __init__(self, model: Any) -> None:
        self._modules = [
            module
            for module in model.modules()
            if "dynamic" in str(getattr(module, "rope_type", "")) and hasattr(module, "inv_freq")
        ]
        self._first = self._read()

    @contextmanager
    def of(self, group: Any) -> Iterator[None]:
        """Have the model use a group's frequencies. group.rope: None for a new group."""
        if not self._modules:
            yield
            return
        self._write(group.rope or self._first)
        try:
            yield
            group.rope = self._read()
        finally:
            self._write(self._first)

    def _read(self) -> list[dict[str, Any]]:
        return [
            {name: getattr(module, name) for name in _KEPT if hasattr(module, name)}
            for module in self._modules
        ]

    def _write(self, state: list[dict[str, Any]]) -> None:
        for module, values in zip(self._modules, state, strict=True):
            for name, value in values.items():
                setattr(module, name, value)
