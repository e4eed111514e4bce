"""Apply fully_shard to each layer of a model and to the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from tunewright.types import LoadedModel
from tunewright_hf.distributed.dtensors import DTensorSharding, check_all_sharded
from tunewright_hf.distributed.sharding import SetDtypes, check_not_quantized
from tunewright_hf.models.deferred import fill, on_meta
from tunewright_hf.models.modules import base_model, layers, quantized_modules

if TYPE_CHECKING:
    from tunewright_fsdp import Fsdp


class FullyShard(DTensorSharding):
    """FSDP2: parameters and optimizer states are DTensors."""

    gathers = True

    def __init__(self, options: "Fsdp.Options") -> None:
        self.options = options

    def begin(self, loaded: LoadedModel, precision: str, set_dtypes: SetDtypes) -> None:
        """Raises RecipeError for quantized weights, RunError where a parameter was left whole."""
        model, deferred = loaded.model, loaded.deferred
        if not _in_four_bits(model):
            check_not_quantized(quantized_modules(model), "fsdp")
        device = deferred.device if deferred else next(model.parameters()).device
        missing = on_meta(model)
        self._shard(model, device.type, set_dtypes)
        if missing:
            self._allocate(model, device)
            fill(loaded, missing, self._take)
        check_all_sharded(model)

    def _offloads(self, device: str) -> bool:
        return self.options.cpu_offload and device != "cpu"

    def _shard(self, model: Any, device: str, set_dtypes: SetDtypes) -> None:
        mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
        offload: OffloadPolicy = CPUOffloadPolicy() if self._offloads(device) else OffloadPolicy()
        base, reshard = base_model(model), self.options.reshard_after_forward
        name, _ = layers(base, ())
        for layer in base.get_submodule(name):
            set_dtypes(layer)  # of one layer at a time: no rank has room for the model in fp32
            fully_shard(layer, mesh=mesh, reshard_after_forward=reshard, offload_policy=offload)
        set_dtypes(model)
        fully_shard(model, mesh=mesh, offload_policy=offload)

    def add(self, module: nn.Module) -> None:
        device = next(module.parameters()).device.type
        mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
        offload: OffloadPolicy = CPUOffloadPolicy() if self._offloads(device) else OffloadPolicy()
        fully_shard(module, mesh=mesh, offload_policy=offload)

    @contextmanager
    def gathered(self, model: Any) -> Iterator[None]:
        parts = [each for each in model.modules() if isinstance(each, FSDPModule)]
        try:
            for part in parts:
                part.set_reshard_after_forward(False, recurse=False)
                part.unshard()
            yield
        finally:
            for part in parts:
                # the whole model keeps what its layers do not hold until the backward pass
                keeps = part is model or not self.options.reshard_after_forward
                part.set_reshard_after_forward(not keeps, recurse=False)
                part.reshard()

    def _allocate(self, model: Any, device: torch.device) -> None:
        """Give shards and buffers on the meta device memory, as `model.to_empty` would give all."""
        offloads = self._offloads(device.type)

        def allocated(tensor: Tensor) -> Tensor:
            if not tensor.is_meta:
                return tensor
            at = "cpu" if offloads and isinstance(tensor, DTensor) else device
            return torch.empty_like(tensor, device=at)

        model._apply(allocated)

    def _take(self, tensor: Tensor, whole: Tensor) -> None:
        """Give a parameter or a buffer the values that rank 0 has."""
        if isinstance(tensor, DTensor):
            self.load_full(tensor, whole)  # type: ignore[arg-type]
        else:
            whole = whole.to(tensor.device)
            torch.distributed.broadcast(whole, src=0)
            tensor.copy_(whole)


def _in_four_bits(model: Any) -> bool:
    """Whether bitsandbytes has quantized to 4 bits: to parameters of plain bytes, which are sharded
    as any others. Each layer keeps its scales whole, and gives them to the gathered weight."""
    return isinstance(getattr(model, "hf_quantizer", None), Bnb4BitHfQuantizer)
