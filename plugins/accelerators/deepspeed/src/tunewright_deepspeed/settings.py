"""DeepSpeed's configuration and import."""

import logging
import os
import warnings
from typing import Any

import torch

from tunewright import RecipeError, RunError

PLACE = "accelerators"


def settings(model: Any, training: Any, options: Any, bf16: bool) -> dict[str, Any]:
    """DeepSpeed's configuration. training: recipe.Training. options: DeepSpeed.Options. Bucket
    sizes depend on the model's size, as in transformers 5.23."""
    width = model.config.get_text_config().hidden_size
    sizes = {
        "reduce_bucket_size": width * width,
        "stage3_prefetch_bucket_size": int(0.9 * width * width),
        "stage3_param_persistence_threshold": 10 * width,
    }
    zero: dict[str, Any] = {"stage": options.stage, **sizes}
    zero |= {f"offload_{what}": {"device": "cpu"} for what in options.offloaded}
    return {
        # DeepSpeed only counts with these: batch sizes and step boundaries are ours
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_clipping": training.max_grad_norm,
        "bf16": {"enabled": bf16},
        "zero_optimization": zero,
        # with an optimizer in CPU memory it would demand its own Adam, which it compiles
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**62,
    }


def check_kind(engine: Any, options: Any) -> None:
    """Raise RunError where DeepSpeed runs another stage than requested, or does not offload.
    options: DeepSpeed.Options."""
    import deepspeed

    if not isinstance(engine, deepspeed.DeepSpeedEngine):
        raise RunError(f"{type(engine).__name__} wraps the model, not DeepSpeed", place=PLACE)
    if (stage := engine.zero_optimization_stage()) != options.stage:
        raise RunError(f"DeepSpeed runs ZeRO-{stage}, not ZeRO-{options.stage}", place=PLACE)
    for part in options.offloaded:
        name = "cpu_offload" if stage == 2 else f"offload_{part}"  # ZeRO-2 only knows one way
        if not getattr(engine.optimizer, name):
            raise RunError(f"DeepSpeed does not offload the {part}", place=PLACE)


def import_for(device: torch.device) -> None:
    """Import DeepSpeed for this device. Raises RecipeError if it would choose another device."""
    if device.type == "cpu":
        if torch.cuda.is_available():
            hint = "train on the GPUs, or hide them: CUDA_VISIBLE_DEVICES= tunewright train …"
            raise RecipeError(
                "deepspeed trains on GPUs where there are some",
                place="family.device",
                hint=hint,
            )
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed would detect the same, with a warning
    import deepspeed

    if device.type == "cpu":
        # otherwise it compiles its own library for communication within a machine, which takes
        # minutes
        deepspeed.ops.__compatible_ops__ = {}
    _quieten()


def _quieten() -> None:
    """Silence messages of DeepSpeed and accelerate: no recipe could change them, and they would go
    to the terminal."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # warnings about who counts accumulation steps
    logging.getLogger("accelerate.accelerator").setLevel(logging.ERROR)
    # DeepSpeed 0.19 calls functions of torch 2.14 by deprecated names
    warnings.filterwarnings(
        "ignore", message="`torch.distributed.[a-z_]*` is deprecated", category=FutureWarning
    )
