"""DeepSpeed's engine: set up, verified, and its state as full tensors.

DeepSpeed's own checkpoints are pickles. Here its state is read and restored parameter by parameter,
so that checkpoints have the usual format.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright import RecipeError, RunError
from tunewright.types import LoadedModel
from tunewright_deepspeed.settings import PLACE, check_kind, import_for, settings
from tunewright_hf.distributed.sharding import (
    SetDtypes,
    ShardingStrategy,
    active_names,
    check_not_quantized,
    on_first,
)
from tunewright_hf.models.modules import base_model, quantized_modules

if TYPE_CHECKING:
    from tunewright_deepspeed import DeepSpeed


class Zero(ShardingStrategy):
    """ZeRO: shards optimizer states and gradients, at stage 3 also parameters."""

    autocasts = False  # DeepSpeed's bf16 casts the model
    clips_in_update = True

    def __init__(self, options: "DeepSpeed.Options") -> None:
        self.options, self.stage = options, options.stage
        self.gathers = options.stage == 2  # each rank holds all parameters
        self.engine: Any = None  # DeepSpeed's engine, which wraps the model
        self.zero: Any = None  # its optimizer, which wraps ours
        # dtypes of parameters, before DeepSpeed casts them
        self.formats: dict[str, torch.dtype] = {}
        # of our optimizer, before DeepSpeed makes one tensor of each
        self.groups: list[list[Parameter]] = []

    def begin(self, loaded: LoadedModel, precision: str, set_dtypes: SetDtypes) -> None:
        """Raises RecipeError where DeepSpeed cannot train the model."""
        model = loaded.model
        check_not_quantized(quantized_modules(model), "deepspeed")
        if precision not in ("bf16", "fp32"):
            problem = "deepspeed trains in bf16 or fp32"
            raise RecipeError(problem, place="training.precision", hint="set bf16 or fp32")
        import_for(model.device)
        self.formats = {name: parameter.dtype for name, parameter in model.named_parameters()}
        self.bf16 = precision == "bf16"
        if self.bf16:  # DeepSpeed makes the copies in fp32, of its shard alone
            self.cast(model, precision)
        else:
            set_dtypes(model)

    def cast(self, model: Any, precision: str) -> None:
        # DeepSpeed would cast it later, after a reference was scored with it
        if precision == "bf16":
            for parameter in model.parameters():
                parameter.data = parameter.data.bfloat16()

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise RecipeError for an optimizer that cannot work on shards of flattened
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
    ) -> None:
        import deepspeed

        self.optimizer, self.accelerator, self.rounding = optimizer, accelerator, rounding
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=settings(model, training, self.options, self.bf16),
        )
        self.check_engine(engine, model)
        self.module, self.model, self.active = engine, model, active_names(model)

    def step_begins(self) -> None:
        """Raises RunError where other parameters are trained than DeepSpeed has laid out."""
        if active_names(self.model) != self.active:
            raise RunError(
                "DeepSpeed cannot train other parameters than it began with, and the optimizer or "
                "the adapter switches them",
                place=PLACE,
                hint="take accelerator fsdp, or none",
            )

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
        """Do nothing: DeepSpeed has freed them."""

    def local(self, parameter: Parameter) -> Tensor:
        return parameter.ds_tensor if self.stage == 3 else parameter.detach()

    def optimizer_structure(self, optimizer: Any) -> Any:
        # ZeRO-3 replaces parameters, and state_dict would not find them
        ours = self.zero.optimizer
        groups = [{**group, "params": []} for group in ours.param_groups]
        return {"state": list(ours.state.values()), "param_groups": groups}

    def check_engine(self, engine: Any, model: Any) -> None:
        """Raise RunError if parameters and optimizer are not sharded as requested."""
        import deepspeed

        check_kind(engine, self.options)
        self.engine, self.zero = engine, engine.optimizer
        processes = torch.distributed.get_world_size()
        sizes = [math.prod(self.shape(parameter)) for group in self.groups for parameter in group]
        trained, own = sum(sizes), sum(flat.numel() for flat, _ in self._flats())
        # shards are padded to equal length
        if processes == 1 or own * processes > trained + 2 * processes * len(sizes):
            raise RunError(
                f"the optimizer holds {own} of {trained} numbers: they are not sharded", place=PLACE
            )
        if self.stage == 3:
            if whole := [
                name for name, each in model.named_parameters() if not hasattr(each, "ds_tensor")
            ]:
                raise RunError(f"{whole[0]} and {len(whole) - 1} more are not sharded", place=PLACE)
            # our loss calls the head outside the model's own forward and backward pass: its weights
            # have to be gathered
            base = base_model(model)
            head = base.get_output_embeddings()
            for parameter in () if head is None else head.parameters():
                deepspeed.zero.register_external_parameter(base, parameter)

    def end(self) -> None:
        """Release the model: DeepSpeed keeps it in a global list."""
        from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

        FWD_MODULE_STACK.clear()
        if self.engine is not None:
            self.engine.destroy()
        self.engine, self.zero, self.groups = None, None, []

    def shape(self, parameter: Parameter) -> tuple[int, ...]:
        return tuple(parameter.ds_shape if self.stage == 3 else parameter.shape)

    def full_tensor(self, parameter: Parameter) -> Tensor:
        """Full tensor of a parameter, in fp32 if it is trained."""
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
        """Write this rank's shard of an fp32 parameter, or of an optimizer state."""
        import deepspeed

        whole = whole.to(parameter.device)
        if self.stage == 2:
            if key is None:
                deepspeed.utils.safe_set_full_fp32_param(parameter, whole)
            else:
                deepspeed.utils.safe_set_full_optimizer_state(parameter, whole, key)
            return
        # the last shard is padded, which DeepSpeed's function for full tensors does not expect
        size, rank = parameter.ds_tensor.ds_numel, torch.distributed.get_rank()
        part = torch.zeros(size, device=whole.device, dtype=whole.dtype)
        there = whole.flatten()[rank * size : (rank + 1) * size]
        part[: len(there)] = there
        if key is None:
            deepspeed.utils.safe_set_local_fp32_param(parameter, part)
        else:
            deepspeed.utils.safe_set_local_optimizer_state(parameter, part, key)

    def _flats(self) -> Iterator[tuple[Parameter, int]]:
        """Flat tensors that our optimizer has on this rank in place of parameters, with the number
        of their group."""
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
        """Link parameters to their part of the optimizer's state. DeepSpeed does so after the first
        of several groups was stepped, when the others have no state yet."""
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
        if [len(group["params"]) for group in groups] != [len(group) for group in self.groups]:
            raise ValueError("the groups of parameters are not those of the state")
        for own, group in zip(ours.param_groups, groups, strict=True):
            own.update({key: value for key, value in group.items() if key != "params"})
        for flat, group in self._flats():
            first = state["state"][groups[group]["params"][0]]
            shape = self.shape(self.groups[group][0])
            # steps are counted there
            on_device = any(groups[group].get(way) for way in ("fused", "capturable"))
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
    """A copy of a step count or the like, for one tensor."""
    return value.clone().to(device) if isinstance(value, Tensor) else value


def _is_like(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether an optimizer state has one number per parameter element, unlike a step count."""
    return isinstance(value, Tensor) and tuple(value.shape) == tuple(shape)
