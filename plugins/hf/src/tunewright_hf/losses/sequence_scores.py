"""What a model with a head `score` says of whole sequences."""

from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import unwrap_peft_model

from tunewright_hf.losses.causal_lm import replaced


def scores_at_the_end(model: Any, forward: Any, batch: dict[str, Tensor]) -> Tensor:
    """(B,) in fp32: what the head says at each sequence's last token, found by position.

    transformers looks for the last token that is not the pad token: the wrong one where that is the
    end token. forward: the model as it is wrapped. batch: input_ids and attention_mask (B, T),
    padded on the right.
    """
    head, last = unwrap_peft_model(model).score, batch["attention_mask"].sum(1) - 1
    own_forward = head.forward

    def at_the_end(states: Tensor) -> Tensor:
        ends = states[torch.arange(len(last), device=last.device), last]
        with torch.autocast(
            states.device.type, enabled=False
        ):  # a reward has more digits than bf16
            return own_forward(ends.float())[:, None].expand(-1, states.shape[1], -1)

    with replaced(head, "forward", at_the_end):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return forward(**inputs, use_cache=False).logits[:, 0]
