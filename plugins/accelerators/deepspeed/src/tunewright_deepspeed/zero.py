"""DeepSpeed's engine: what it is told, whether it did so, and its state as whole tensors.

DeepSpeed saves pickles. Here its state is taken out and put back parameter by parameter, so that it
is kept as that of every other training.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright import RecipeError, RunError
from tunewright_deepspeed.settings import import_for, settings
from tunewright_hf.distributed.sharding import ShardingStrategy, check_not_quantized, on_first
from tunewright_hf.models.modules import base_model, quantized_modules

PLACE = "accelerators"


class Zero(ShardingStrategy):
    """Optimizer states and gradients are sharded, and at stage 3 the parameters."""

    autocasts = False  # DeepSpeed's bf16 casts the model
    clips_in_update = True

    def __init__(self, stage: int) -> None:
        self.stage = stage
        self.engine: Any = None  # DeepSpeed's, round the model
        self.zero: Any = None  # and its optimizer round ours
        self.formats: dict[str, torch.dtype] = {}  # of parameters, before DeepSpeed casts them
        self.groups: list[
            list[Parameter]
        ] = []  # of our optimizer, before DeepSpeed makes one tensor of each

    def begin(self, model: Any, precision: str) -> None:
        """Raises RecipeError where DeepSpeed cannot train the model."""
        check_not_quantized(quantized_modules(model), "deepspeed")
        if precision not in ("bf16", "fp32"):
            raise RecipeError(
                "deepspeed trains in bf16 or fp32",
                place="training.precision",
                hint="set bf16 or fp32",
            )
        import_for(model.device)
        self.formats = {name: parameter.dtype for name, parameter in model.named_parameters()}
        self.bf16 = precision == "bf16"
        self.cast(model, precision)

    def cast(self, model: Any, precision: str) -> None:
        # as DeepSpeed does it, which has no autocast; here before a reference is scored with the
        # same model
        if precision == "bf16":
            for parameter in model.parameters():
                parameter.data = parameter.data.bfloat16()

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

    def prepare(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        training: Any,
        rounding: Any = None,
    ) -> Any:
        import deepspeed

        self.optimizer, self.accelerator, self.rounding = optimizer, accelerator, rounding
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=settings(model, training, self.stage, self.bf16),
        )
        self.check_engine(engine, model)
        return engine

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        self.engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)

    def update(self) -> tuple[bool, float | None]:
        self.engine.step()
        return True, float(self.engine.get_global_grad_norm())

    def free_gradients(self) -> None:
        """DeepSpeed has done so."""

    def local(self, parameter: Parameter) -> Tensor:
        return parameter.ds_tensor if self.stage == 3 else parameter.detach()

    def optimizer_structure(self, optimizer: Any) -> Any:
        ours = (
            self.zero.optimizer
        )  # ZeRO-3 swaps its parameters, and state_dict would not find them
        groups = [{**group, "params": []} for group in ours.param_groups]
        return {"state": list(ours.state.values()), "param_groups": groups}

    def check_engine(self, engine: Any, model: Any) -> None:
        """Raises RunError where parameters and optimizer are not sharded as they were asked to
        be."""
        import deepspeed

        self.engine = engine
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
                f"the optimizer holds {own} of {trained} numbers: they are not sharded", place=PLACE
            )
        if self.stage == 3:
            if whole := [
                name for name, each in model.named_parameters() if not hasattr(each, "ds_tensor")
            ]:
                raise RunError(f"{whole[0]} and {len(whole) - 1} more are not sharded", place=PLACE)
            # our loss calls the head from the model's own forward and backward pass: its weights
            # have to be there
            base = base_model(model)
            head = base.get_output_embeddings()
            for parameter in () if head is None else head.parameters():
                deepspeed.zero.register_external_parameter(base, parameter)

    def end(self) -> None:
        """Let go of the model: DeepSpeed holds it in a list of its own."""
        from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

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
        self, model: Any, dtypes: dict[str, torch.dtype], names: Collection[str] | None = None
    ) -> dict[str, Tensor] | None:
        return super().weights(model, self.formats | dtypes, names)

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


def _own(value: Any, device: torch.device) -> Any:
    """A step or the like, for one tensor alone."""
    return value.clone().to(device) if isinstance(value, Tensor) else value


def _is_like(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value of an optimizer's state has a number for each of the parameter's, and no step
    or the like."""
    return isinstance(value, Tensor) and tuple(value.shape) == tuple(shape)
