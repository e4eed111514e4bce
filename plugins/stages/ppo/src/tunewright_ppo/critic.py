"""Policy with a critic: a linear value head on the hidden states that the language-model head
reads."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tunewright import RunError
from tunewright_hf.losses.causal_lm import CausalLoss, shift
from tunewright_hf.losses.chunked_cross_entropy import IGNORED, label_logps

NAME = "value_head"


class ActorCritic(CausalLoss):
    """Adds the value head to the model, so that it is trained, wrapped and saved in checkpoints
    like the rest."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if self.after_head is None:
            raise RunError(
                "this model makes its logits in a way of its own: it can have no critic",
                place="stage",
            )
        head = nn.Linear(
            self.base.config.get_text_config().hidden_size,
            1,
            device=model.device,
            dtype=torch.float32,
        )
        nn.init.zeros_(head.weight)  # initial values are 0 for any model
        nn.init.zeros_(head.bias)
        self.base.add_module(NAME, head)

    @property
    def head(self) -> nn.Module:
        """The value head."""
        return self.base.get_submodule(NAME)

    def remove_head(self) -> nn.Module:
        """Remove the value head from the model, and return it."""
        head = self.head
        delattr(self.base, NAME)
        return head

    def logps_and_values(
        self, forward: Any, inputs: dict[str, Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(log-probabilities, values, auxiliary): like `logps`, with the critic's value before each
        label (B, T), fp32."""
        targets, known = shift(labels, None)
        places = (targets != IGNORED).nonzero(as_tuple=True)
        value_head: Any = self.head

        def both(states: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
            logps = label_logps(states, score, targets, self.vocab)
            with torch.autocast(states.device.type, enabled=False):
                own = states[places].to(value_head.weight.dtype)  # DeepSpeed casts it to bf16
                return torch.stack([logps, value_head(own).squeeze(-1).float()])

        loss, made = self._forward(forward, inputs, labels, both, 1.0)
        auxiliary = (loss - made).mean()
        logps, values = (
            torch.zeros_like(known).index_put(places, each) for each in loss - auxiliary
        )
        return logps, values, auxiliary
