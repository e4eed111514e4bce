"""Training of a model whose layers transformers has split."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from tunewright import RunError
from tunewright.types import LoadedModel
from tunewright_hf.distributed.dtensors import DTensorSharding
from tunewright_hf.distributed.sharding import NoSharding, SetDtypes
from tunewright_hf.training.callbacks import TrainingCallback
from tunewright_tensor_parallel.limits import check_accumulation


class TensorSharding(DTensorSharding):
    """Matrices are DTensors, of one or two meshes. What every rank of a group needs whole, such as
    norms, is a plain tensor, or sharded over groups."""

    def begin(self, loaded: LoadedModel, precision: str, set_dtypes: SetDtypes) -> None:
        """Raises RunError where nothing is split."""
        self.trains_own = loaded.saves != "adapter"
        set_dtypes(loaded.model)
        self.reshard(loaded.model)  # it was tried on a few tokens
        if not any(isinstance(each, DTensor) for each in loaded.model.parameters()):
            raise RunError("no parameter is split", place="accelerators")

    def prepare(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        training: Any,
        rounding: Any = None,
    ) -> None:
        if self.trains_own:
            check_accumulation(model.config, training.gradient_accumulation_steps)
        super().prepare(model, optimizer, accelerator, training, rounding)

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        # torch cannot update plain tensors, and tensors of several meshes, at once
        for group in optimizer.param_groups:
            group |= {name: False for name in ("foreach", "fused") if name in group}

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(last)
        yield

    def clip(self, parameters: Sequence[Parameter], max_norm: float) -> float:
        gradients: list[Any] = [each.grad for each in parameters if each.grad is not None]
        norms = [_whole(torch.linalg.vector_norm(each)) for each in gradients]
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        if max_norm and norm > max_norm:
            for each in gradients:
                _local(each).mul_(max_norm / (norm + 1e-6))
        return norm

    def local(self, parameter: Parameter) -> Tensor:
        return _local(parameter.detach())

    def full_tensor(self, parameter: Parameter) -> Tensor:
        return _whole(parameter.detach())

    def load_full(self, parameter: Parameter, whole: Tensor) -> None:
        if isinstance(parameter, DTensor):
            super().load_full(parameter, whole)
        else:
            NoSharding.load_full(self, parameter, whole)


class SameDropout(TrainingCallback):
    """Has the ranks of a group draw the same random numbers in a step: they compute one batch.
    group: its number."""

    def __init__(self, group: int) -> None:
        self.group = group

    def on_step_begin(self, loop: Any) -> None:
        seed = loop.trainer.request.training.seed
        torch.manual_seed(zlib.crc32(f"{seed} {loop.step} {self.group}".encode()))


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
