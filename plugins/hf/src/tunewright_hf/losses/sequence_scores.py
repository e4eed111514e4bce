"""What a model with a head `score` says of whole sequences."""

from typing import Any

import torch
from torch import Tensor

from tunewright_hf.losses.causal_lm import replaced, without_virtual_tokens
from tunewright_hf.models.modules import base_model

__all__ = [
    "scores_at_the_end",
]


def scores_at_the_end(model: Any, forward: Any, inputs: dict[str, Tensor]) -> Tensor:
    """(B,) in fp32: what the head says at each sequence's last token, found by position.

    transformers looks for the last token that is not the pad token: the wrong one where that is the
    end token. forward: the model as it is wrapped. inputs: input_ids, attention_mask (B, T), padded
    on the right, and what else the model takes.
    """
    head, last = base_model(model).score, inputs["attention_mask"].sum(1) - 1
    own_forward = head.forward

    def at_the_end(states: Tensor) -> Tensor:
        own = without_virtual_tokens(model, states, inputs["input_ids"].shape[1])
        ends = own[torch.arange(len(last), device=last.device), last]
        dtypes = {parameter.dtype for parameter in head.parameters()}  # PEFT keeps the old one too
        dtype = torch.float32 if torch.float32 in dtypes else ends.dtype
        with torch.autocast(
            states.device.type, enabled=False
        ):  # rewards have more digits than bf16
            return own_forward(ends.to(dtype))[:, None].expand(-1, states.shape[1], -1)

    with replaced(head, "forward", at_the_end):
        return forward(**inputs, use_cache=False).logits[:, 0].float()
