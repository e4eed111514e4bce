"""DeepSpeed's engine behind transformers' Trainer: what it is told, whether it did so, and its
state as whole tensors.

DeepSpeed saves pickles. Here its state is taken out and put back parameter by parameter, so that it
is kept as that of every other training.
"""

import logging
import math
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_utils import unwrap_peft_model

from tunewright import RecipeError, RunError
from tunewright_hf.distributed.sharding import ShardingStrategy, check_not_quantized, on_first
from tunewright_hf.models.modules import quantized_modules

PLACE = "accelerators"


class Zero(ShardingStrategy):
    """Optimizer states and gradients are in parts, and at stage 3 the parameters."""

    def __init__(self, stage: int) -> None:
        self.stage = stage
        self.engine: Any = None  # DeepSpeed's, round the model
        self.zero: Any = None  # and its optimizer round ours
        self.formats: dict[str, torch.dtype] = {}  # of parameters, before DeepSpeed casts them
        self.groups: list[
            list[Parameter]
        ] = []  # of our optimizer, before DeepSpeed makes one tensor of each

    def arguments(self) -> dict[str, Any]:
        own = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
        sizes = (
            "reduce_bucket_size",
            "stage3_prefetch_bucket_size",
            "stage3_param_persistence_threshold",
        )
        # transformers says what is "auto": from its own arguments, or by the size of the model
        config = {
            **dict.fromkeys(own, "auto"),
            "bf16": {"enabled": "auto"},
            "zero_optimization": {"stage": self.stage, **dict.fromkeys(sizes, "auto")},
        }
        return {"deepspeed": config}

    def begin(self, model: Any, number_format: str) -> None:
        """Raises RecipeError where DeepSpeed cannot train the model."""
        check_not_quantized(quantized_modules(model), "deepspeed")
        if number_format == "fp16":
            raise RecipeError(
                "deepspeed trains in bf16 or fp32",
                place="training.precision",
                hint="set bf16 or fp32",
            )
        if model.device.type == "cpu":
            if torch.cuda.is_available():
                hint = "train on the GPUs, or hide them: CUDA_VISIBLE_DEVICES= tunewright train …"
                raise RecipeError(
                    "deepspeed trains on GPUs where there are some",
                    place="family.device",
                    hint=hint,
                )
            os.environ["DS_ACCELERATOR"] = "cpu"  # what it would find by itself, with a warning
        import deepspeed

        if model.device.type == "cpu":
            # else it compiles one of its own for messages between processes of a machine, which
            # takes minutes
            deepspeed.ops.__compatible_ops__ = {}
        _quieten()
        self.formats = {name: parameter.dtype for name, parameter in model.named_parameters()}
        self.cast(model, number_format)

    def cast(self, model: Any, number_format: str) -> None:
        # as DeepSpeed does it, which has no autocast; here before a reference is scored with the
        # same model
        if number_format == "bf16":
            for parameter in model.parameters():
                parameter.data = parameter.data.bfloat16()

    def trainer_made(self) -> None:
        # every model that is loaded from now on would be spread, such as a reference: only ours is
        # to be
        unset_hf_deepspeed_config()

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises RecipeError for an optimizer that cannot work on pieces of flattened
        parameters."""
        from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS

        if type(optimizer) not in ZERO_SUPPORTED_OPTIMIZERS:
            problem = (
                "DeepSpeed hands optimizers pieces of parameters, and "
                f"{type(optimizer).__name__} needs them whole"
            )
            raise RecipeError(problem, place="optimizer", hint="take adamw, or accelerator fsdp")
        self.groups = [list(group["params"]) for group in optimizer.param_groups]

    def ready(self, trainer: Any) -> None:
        """Raises RunError where parameters and optimizer are not spread as they were asked to
        be."""
        import deepspeed

        self.engine = engine = trainer.model_wrapped
        if not isinstance(engine, deepspeed.DeepSpeedEngine):
            raise RunError(f"{type(engine).__name__} wraps the model, not DeepSpeed", place=PLACE)
        self.zero = engine.optimizer
        if (stage := engine.zero_optimization_stage()) != self.stage:
            raise RunError(f"DeepSpeed runs ZeRO-{stage}, not ZeRO-{self.stage}", place=PLACE)
        processes = torch.distributed.get_world_size()
        sizes = [math.prod(self.shape(parameter)) for group in self.groups for parameter in group]
        trained, own = sum(sizes), sum(flat.numel() for flat, _ in self._flats())
        # parts are filled up, so that they are as long as each other
        if processes == 1 or own * processes > trained + 2 * processes * len(sizes):
            raise RunError(
                f"the optimizer holds {own} of {trained} numbers: they are not spread", place=PLACE
            )
        if self.stage == 3:
            if whole := [
                name
                for name, each in trainer.model.named_parameters()
                if not hasattr(each, "ds_tensor")
            ]:
                raise RunError(f"{whole[0]} and {len(whole) - 1} more are not spread", place=PLACE)
            # our loss calls the head from the model's own forward and backward pass: its weights
            # have to be there
            base = unwrap_peft_model(trainer.model)
            head = base.get_output_embeddings()
            for parameter in () if head is None else head.parameters():
                deepspeed.zero.register_external_parameter(base, parameter)

    def end(self) -> None:
        """Let go of the model: DeepSpeed holds it in a list of its own."""
        from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

        unset_hf_deepspeed_config()
        FWD_MODULE_STACK.clear()
        if self.engine is not None:
            self.engine.destroy()
        self.engine, self.zero, self.groups = None, None, []

    def shape(self, parameter: Parameter) -> tuple[int, ...]:
        return tuple(parameter.ds_shape if self.stage == 3 else parameter.shape)

    def full_tensor(self, parameter: Parameter) -> Tensor:
        """In fp32 where it is trained."""
        import deepspeed

        if parameter.requires_grad and self.zero is not None:
            return deepspeed.utils.safe_get_full_fp32_param(parameter)
        if self.stage == 2:
            return parameter.detach()
        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()

    def weights(
        self, model: Any, formats: dict[str, torch.dtype], *, trained_only: bool
    ) -> dict[str, Tensor] | None:
        return super().weights(model, self.formats | formats, trained_only=trained_only)

    def load_full(self, parameter: Parameter, whole: Tensor) -> None:
        import deepspeed

        self._put_part(parameter, whole, None)
        if self.stage == 2:
            super().load_full(parameter, whole)
        else:
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.data.copy_(whole)

    def _put_part(self, parameter: Parameter, whole: Tensor, key: str | None) -> None:
        """Give DeepSpeed this process's part of an fp32 parameter, or of a state of the
        optimizer."""
        import deepspeed

        whole = whole.to(parameter.device)
        if self.stage == 2:
            if key is None:
                deepspeed.utils.safe_set_full_fp32_param(parameter, whole)
            else:
                deepspeed.utils.safe_set_full_optimizer_state(parameter, whole, key)
            return
        # the last part is filled up, which the function for whole tensors does not reckon with
        size, rank = parameter.ds_tensor.ds_numel, torch.distributed.get_rank()
        part = torch.zeros(size, device=whole.device, dtype=whole.dtype)
        there = whole.flatten()[rank * size : (rank + 1) * size]
        part[: len(there)] = there
        if key is None:
            deepspeed.utils.safe_set_local_fp32_param(parameter, part)
        else:
            deepspeed.utils.safe_set_local_optimizer_state(parameter, part, key)

    def _flats(self) -> Iterator[tuple[Parameter, int]]:
        """The tensors that our optimizer has in this process in place of its parameters, and the
        group of each."""
        if self.stage == 2:
            yield from (
                (flat, number)
                for number, flat in enumerate(self.zero.single_partition_of_fp32_groups)
            )
        else:
            groups = self.zero.sub_group_to_group_id
            yield from (
                (flat, groups[number])
                for number, flat in enumerate(self.zero.fp32_partitioned_groups_flat)
            )

    def _link(self) -> None:
        """Let parameters know their part of the optimizer's state. DeepSpeed does so when the first
        of several groups has been stepped, and the others have no state yet."""
        import deepspeed

        if self.stage == 2:
            for flat, group in self._flats():
                deepspeed.utils.lazy_init_hp_params_optimizer_state(
                    self.groups[group], flat, self.zero.optimizer.state
                )

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        import deepspeed

        ours = self.zero.optimizer
        self._link()
        values = {group: (ours.state[flat], flat.shape) for flat, group in self._flats()}
        state: dict[int, dict[str, Any]] = {}
        groups = []
        for group, parameters in enumerate(self.groups):
            of_group, shape = values[group]
            numbers = list(range(len(state), len(state) + len(parameters)))
            for number, parameter in zip(numbers, parameters, strict=True):
                state[number] = {
                    key: on_first(deepspeed.utils.safe_get_full_optimizer_state(parameter, key))
                    if _is_like(value, shape)
                    else value
                    for key, value in of_group.items()
                }
            groups.append({**ours.param_groups[group], "params": numbers})
        return {"state": state, "param_groups": groups}

    def put_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        ours, groups = self.zero.optimizer, state["param_groups"]
        if [len(group["params"]) for group in groups] != [
            len(parameters) for parameters in self.groups
        ]:
            raise ValueError("the groups of parameters are not those of the state")
        for own, group in zip(ours.param_groups, groups, strict=True):
            own.update({key: value for key, value in group.items() if key != "params"})
        for flat, group in self._flats():
            first, shape = (
                state["state"][groups[group]["params"][0]],
                self.shape(self.groups[group][0]),
            )
            on_device = any(
                groups[group].get(way) for way in ("fused", "capturable")
            )  # steps are counted there
            device = flat.device if on_device else torch.device("cpu")
            ours.state[flat] = {
                key: torch.zeros_like(flat) if _is_like(value, shape) else _own(value, device)
                for key, value in first.items()
            }
        self._link()
        for group, parameters in zip(groups, self.groups, strict=True):
            for number, parameter in zip(group["params"], parameters, strict=True):
                for key, value in state["state"][number].items():
                    if _is_like(value, self.shape(parameter)):
                        self._put_part(parameter, value, key)


def _quieten() -> None:
    """What DeepSpeed and accelerate have to say is nothing that a recipe could change, and would go
    to the terminal."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    logging.getLogger("accelerate.accelerator").setLevel(
        logging.ERROR
    )  # who counts the passes of a step
    # DeepSpeed 0.19 calls functions of torch 2.14 by old names
    warnings.filterwarnings(
        "ignore", message="`torch.distributed.[a-z_]*` is deprecated", category=FutureWarning
    )


def _own(value: Any, device: torch.device) -> Any:
    """A step or the like, for one tensor alone."""
    return value.clone().to(device) if isinstance(value, Tensor) else value


def _is_like(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value of an optimizer's state has a number for each of the parameter's, and no step
    or the like."""
    return isinstance(value, Tensor) and tuple(value.shape) == tuple(shape)
