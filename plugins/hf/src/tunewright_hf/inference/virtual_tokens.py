"""Virtual tokens of prompt and prefix tuning, which stand before every prompt."""

import sys
from typing import Any

import torch
from torch import Tensor

__all__ = ["VirtualTokens"]


class VirtualTokens:
    """Virtual tokens of a PEFT model. count: 0 without any.

    PEFT's own forward would put them before every token that is generated. They are computed once
    for a prompt here, and the model below goes on.
    """

    def __init__(self, model: Any) -> None:
        peft = sys.modules.get("peft")
        self._model, self.count = model, 0
        if peft is not None and isinstance(model, peft.PeftModel):
            config = model.active_peft_config
            if config.is_prompt_learning:
                self.count = config.num_virtual_tokens

    def embeddings(self) -> Tensor | None:
        """Embeddings (1, count, H) of prompt tuning; None with prefix tuning."""
        found = self._model.get_prompt(1)
        return found.to(self._model.dtype) if isinstance(found, torch.Tensor) else None

    def write(self, cache: Any) -> None:
        """Write the keys and values of prefix tuning into a cache with room for them."""
        for number, layer in enumerate(self._model.get_prompt(1).layers):
            if layer.keys is not None:
                cache.update(layer.keys, layer.values, number)
