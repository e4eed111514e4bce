"""Checkpoints that transformers shards while they are read."""

from collections.abc import Callable
from typing import Any

from accelerate import PartialState
from transformers.distributed import DistributedConfig

from tunewright import RecipeError
from tunewright.types import LoadRequest, RunContext
from tunewright_hf.distributed.group import group_timeout, open_group
from tunewright_hf.distributed.meeting import begin_together
from tunewright_hf.models.devices import pick_device

__all__ = ["check_shared_matrix", "check_size", "shard_while_loading"]


def check_size(run: RunContext, size: int, name: str) -> None:
    """Raise RecipeError where the run's ranks are not several groups of `size`, or one. name: of
    the accelerator."""
    if run.world_size == 1 or run.world_size % size:
        raise RecipeError(
            f"{name} needs a multiple of {size} ranks, and there are {run.world_size}",
            place="accelerators",
            hint="set launch.processes",
        )


def shard_while_loading(
    run: RunContext,
    request: LoadRequest,
    sizes: DistributedConfig,
    check_config: Callable[[Any], None],
) -> None:
    """Set what transformers needs in order to shard the model of `request`. check_config: of the
    model; raises RecipeError.

    All ranks are in one process group afterwards.
    """
    device = pick_device(request.device or run.plugin("family").options.device)
    begin_together(run, 0)  # no rank may stop alone from now on
    open_group(run, device)
    PartialState(cpu=device.type == "cpu", timeout=group_timeout(run))
    # the dtype that it trains in: that of shards cannot be changed
    pure = run.recipe.training.precision == "pure_bf16"
    request.dtype = "bfloat16" if pure else "float32"
    request.config_edits.append(check_config)
    request.model_arguments |= {
        "distributed_config": sizes,
        "device_map": None,  # each rank's own
    }


def check_shared_matrix(model: Any, shards: int) -> None:
    """Raise RecipeError where embeddings and head are one matrix, with rows that cannot be shared
    evenly. shards: their number.

    transformers shards it for both. torch pads both shards where the last one is smaller, each in a
    copy of its own. The optimizer updates one copy: the other would keep its first weights.
    """
    config = model.config.get_text_config()
    rows = model.get_input_embeddings().weight.shape[0]
    if config.tie_word_embeddings and rows % shards:
        raise RecipeError(
            f"{rows} rows of the matrix that is embeddings and head cannot be shared evenly by "
            f"{shards} ranks",
            place="accelerators",
            hint="take fsdp, or a number of processes that divides them",
        )
