"""Positions of tokens in models that number images in three directions (M-RoPE, Wang et al. 2024,
arXiv:2409.12191)."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Numbering", "numbering"]


class Numbering:
    """The model's own `get_rope_index`, without its weights: it can be sent to another process.

    It reads nothing of the model but its config and a few numbers, which a test holds.
    """

    def __init__(self, model: Any) -> None:
        kind = type(model)
        self._model: Any = object.__new__(kind)
        nn.Module.__init__(self._model)
        numbers = {name: each for name, each in vars(model).items() if type(each) in (int, float)}
        vars(self._model).update(numbers, config=model.config)
        self._known = set(inspect.signature(kind.get_rope_index).parameters)

    def __call__(
        self, input_ids: Sequence[int], types: dict[str, list[int]], tensors: dict[str, Tensor]
    ) -> Tensor:
        """Positions (3, 1, T) of one row. types, tensors: as MediaRows has them of it."""
        ids = torch.tensor([list(input_ids)])
        given = {name: torch.tensor([each]) for name, each in types.items()} | tensors
        given["attention_mask"] = torch.ones_like(ids)
        # Qwen's omni models call two of their inputs otherwise
        given["second_per_grids"] = tensors.get("video_second_per_grid")
        if "feature_attention_mask" in tensors:
            given["audio_seqlens"] = tensors["feature_attention_mask"].sum(-1)
        given = {name: each for name, each in given.items() if name in self._known}
        return self._model.get_rope_index(input_ids=ids, **given)[0].long()


def numbering(model: Any) -> Numbering | None:
    """The Numbering of a model; None if it numbers tokens consecutively."""
    for module in model.modules():
        if hasattr(module, "get_rope_index"):
            return Numbering(module)
    return None
