"""Load a checkpoint so that each rank gets its experts, and its shard of all other weights."""

from typing import Any

from accelerate import PartialState
from transformers.distributed import DistributedConfig

from tunewright import RecipeError
from tunewright.types import LoadRequest, RunContext
from tunewright_hf.distributed.group import group_timeout, open_group
from tunewright_hf.distributed.meeting import begin_together
from tunewright_hf.models.devices import pick_device

#: name of the number of experts in the configs of transformers
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


def shard_while_loading(run: RunContext, request: LoadRequest, size: int) -> None:
    """Set what transformers needs in order to shard the model of `request`. size: ranks that the
    experts of a layer are spread over.

    All ranks are in one process group afterwards.
    """
    device = pick_device(request.device or run.plugin("family").options.device)
    begin_together(run, 0)  # no rank may stop alone from now on
    open_group(run, device)
    PartialState(cpu=device.type == "cpu", timeout=group_timeout(run))
    # the dtype that it trains in: that of shards cannot be changed
    pure = run.recipe.training.precision == "pure_bf16"
    request.dtype = "bfloat16" if pure else "float32"
    request.config_edits.append(lambda config: check_config(config, size))
    request.model_arguments |= {
        "distributed_config": DistributedConfig(fsdp_size=run.world_size, ep_size=size),
        "device_map": None,  # each rank's own
    }


def check_config(config: Any, size: int) -> None:
    """Raise RecipeError for a model that transformers cannot spread over `size` ranks."""
    text = config.get_text_config()
    if not text.base_model_ep_plan:
        raise RecipeError(
            f"transformers has no plan of experts for {text.model_type}",
            place="accelerators",
            hint="take fsdp in place of expert_parallel",
        )
    experts = next((getattr(text, name) for name in _COUNTS if hasattr(text, name)), size)
    if experts % size:
        raise RecipeError(
            f"{experts} experts cannot be spread over {size} ranks",
            place="accelerators",
            hint="set a size that divides them",
        )
