"""PiSSA, OLoRA, CorDA and LoRA-GA change the base weights when they initialise. On save they are
converted to a plain LoRA of rank 2r for the original checkpoint.

With A0 and B0 the initial matrices and W the original weight, training sees W - s B0 A0 + s B A.
That is W + s (B A - B0 A0), a plain LoRA of twice the rank: [B, -B0] [A; A0].
"""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tunewright_hf.models.peft_import import without_bitsandbytes

with without_bitsandbytes():
    from peft import get_peft_model_state_dict

__all__ = ["save_as_plain"]


def save_as_plain(model: Any) -> None:
    """Make `model.save_pretrained` write the plain adapter. Call it when the adapter is new, before
    training."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    initial = {
        name: tensor.detach().cpu().clone() for name, tensor in state.items() if _is_matrix(name)
    }
    own_save = model.save_pretrained

    def save_pretrained(save_directory: Any, **arguments: Any) -> None:
        own_save(save_directory, **arguments)
        folder = Path(save_directory)
        save_file(
            _doubled(model, initial, arguments.get("state_dict")),
            folder / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        _config(model).save_pretrained(folder)

    model.save_pretrained = save_pretrained


def _is_matrix(name: str) -> bool:
    return "lora_A" in name or "lora_B" in name


def _doubled(
    model: Any, initial: dict[str, torch.Tensor], whole: dict[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    """whole: weights of a model that is sharded."""
    state = get_peft_model_state_dict(model, state_dict=whole, save_embedding_layers=False)
    for name, first in initial.items():
        now = state[name].detach().cpu()
        state[name] = (
            torch.cat([now, first], dim=0) if "lora_A" in name else torch.cat([now, -first], dim=1)
        )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _config(model: Any) -> Any:
    config = copy.deepcopy(model.peft_config["default"])
    config.r *= 2
    config.lora_alpha *= 2**0.5 if config.use_rslora else 2  # the scale stays unchanged
    config.init_lora_weights = True
    config.corda_config = config.lora_ga_config = None
    config.inference_mode = True
    return config
