"""Scores of whole sequences, from a model with a head `score`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tunewright_hf.losses.causal_lm import replaced, without_virtual_tokens
from tunewright_hf.models.modules import base_model

__all__ = ["last_known", "outputs_at_the_end", "outputs_of_tokens", "scores_at_the_end"]


def last_known(known: Tensor) -> Tensor:
    """Index (B,) of the last true or positive value of each row (B, T)."""
    return known.shape[1] - 1 - (known > 0).flip(1).int().argmax(1)


def scores_at_the_end(
    model: Any, forward: Any, inputs: dict[str, Tensor], last: Tensor | None = None
) -> Tensor:
    """Score (B,) of a head with one output: see `outputs_at_the_end`."""
    return outputs_at_the_end(model, forward, inputs, last)[:, 0]


def outputs_at_the_end(
    model: Any, forward: Any, inputs: dict[str, Tensor], last: Tensor | None = None
) -> Tensor:
    """Outputs (B, N) of the head in fp32 at each sequence's last token, found by position.

    last: the index (B,) of that token. Default: by attention_mask.

    transformers looks for the last token that is not the pad token, which is wrong if that is also
    the stop token. forward: the model as wrapped. inputs: input_ids, attention_mask (B, T),
    right-padded, and further arguments of the model.
    """
    head = base_model(model).score
    last = inputs["attention_mask"].sum(1) - 1 if last is None else last
    in_fp32 = _in_fp32(head)

    def at_the_end(states: Tensor) -> Tensor:
        own = without_virtual_tokens(model, states, inputs["input_ids"].shape[1])
        ends = own[torch.arange(len(last), device=last.device), last]
        return in_fp32(ends)[:, None].expand(-1, states.shape[1], -1)

    with replaced(head, "forward", at_the_end):
        outputs: Tensor = forward(**inputs, use_cache=False).logits.float()
        return outputs


def outputs_of_tokens(model: Any, forward: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Outputs (B, T, N) of the head in fp32 for each token. Arguments: see `outputs_at_the_end`."""
    head = base_model(model).score
    in_fp32, count = _in_fp32(head), inputs["input_ids"].shape[1]

    def of_tokens(states: Tensor) -> Tensor:
        return in_fp32(without_virtual_tokens(model, states, count))

    with replaced(head, "forward", of_tokens):
        outputs: Tensor = forward(**inputs).logits.float()
        return outputs


def _in_fp32(head: Any) -> Callable[[Tensor], Tensor]:
    """The head's forward, without autocast: scores need more precision than bf16."""
    own_forward = head.forward
    # PEFT also keeps the original head
    dtypes = {parameter.dtype for parameter in head.parameters()}

    def forward(states: Tensor) -> Tensor:
        dtype = torch.float32 if torch.float32 in dtypes else states.dtype
        with torch.autocast(states.device.type, enabled=False):
            found: Tensor = own_forward(states.to(dtype))
            return found

    return forward
