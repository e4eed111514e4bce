"""Noise on the output of a model's embeddings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunewright_hf.losses.causal_lm import replaced
from tunewright_hf.models.modules import base_model
from tunewright_hf.training.callbacks import TrainingCallback


class Noise(TrainingCallback):
    """Uniform noise × alpha / sqrt(L d), where gradients are computed. L: tokens of the example
    that a token belongs to, padding not counted; d: embedding size."""

    def __init__(self, alpha: float, seed: int, rank: int) -> None:
        self.alpha, self.seed, self.rank = alpha, seed, rank
        self._lengths: Tensor | None = None  # (B, T), of the batch in the forward pass
        self._generator: torch.Generator | None = None

    @contextmanager
    def added(self, model: Any) -> Iterator[None]:
        """Add noise to the embeddings of `model`, which may be PEFT-wrapped."""
        embeddings = base_model(model).get_input_embeddings()
        callbacks = [*getattr(model, "training_callbacks", ()), self]
        hooks = [
            # of the outer model: PEFT calls the forward of the inner one without its hooks
            model.register_forward_pre_hook(self._before_model, with_kwargs=True),
            embeddings.register_forward_hook(self._after_embeddings),
        ]
        try:
            with replaced(model, "training_callbacks", callbacks):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def on_step_begin(self, loop: Any) -> None:
        """Seed the noise of this step: nothing has to be kept in checkpoints."""
        numbers = np.random.SeedSequence([self.seed, loop.step, self.rank])
        self._generator = torch.Generator(loop.trainer.device)
        self._generator.manual_seed(int(numbers.generate_state(1, np.uint64)[0] >> 1))

    def _before_model(self, module: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        self._lengths = lengths(inputs)

    def _after_embeddings(self, module: nn.Module, args: Any, states: Tensor) -> Tensor | None:
        if not (module.training and torch.is_grad_enabled()):
            return None  # as they are
        size = (
            states.shape[1] if self._lengths is None else self._lengths.unsqueeze(-1).clamp(min=1)
        )
        noise = torch.empty(states.shape, device=states.device).uniform_(
            -1, 1, generator=self._generator
        )
        scale = (
            self.alpha * (torch.as_tensor(size, device=states.device) * states.shape[-1]) ** -0.5
        )
        return states + (noise * scale).to(states.dtype)


def lengths(inputs: dict[str, Any]) -> Tensor | None:
    """Tokens of the example that each token belongs to (B, T), from attention_mask (B, T), or from
    the position_ids (1, T) of packed examples; None: there is neither."""
    mask, places = inputs.get("attention_mask"), inputs.get("position_ids")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask.sum(-1, keepdim=True).expand(mask.shape)
    if isinstance(places, Tensor) and places.shape[0] == 1:
        starts = (places[0] == 0).long()
        starts[0] = 1
        example = starts.cumsum(0) - 1
        return example.bincount()[example][None]
    return None
