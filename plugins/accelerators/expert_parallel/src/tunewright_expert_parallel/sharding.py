"""Training of a model that transformers has sharded: experts over some ranks, the rest over all."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter

from tunewright.types import LoadedModel
from tunewright_hf.distributed.dtensors import DTensorSharding, check_all_sharded
from tunewright_hf.distributed.sharding import SetDtypes


class ExpertSharding(DTensorSharding):
    """Parameters are DTensors, of two meshes."""

    def begin(self, loaded: LoadedModel, precision: str, set_dtypes: SetDtypes) -> None:
        """Raises RunError where a parameter is whole."""
        self.reshard(loaded.model)  # it was tried on a few tokens
        check_all_sharded(loaded.model)
        # that gathering tensors of two meshes takes two steps
        logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        # torch cannot update tensors of two meshes at once
        for group in optimizer.param_groups:
            group |= {name: False for name in ("foreach", "fused") if name in group}

    def clip(self, parameters: Sequence[Parameter], max_norm: float) -> float:
        gradients: list[Any] = [each.grad for each in parameters if each.grad is not None]
        norms = [torch.linalg.vector_norm(each).full_tensor() for each in gradients]
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        if max_norm and norm > max_norm:
            for each in gradients:
                each.to_local().mul_(max_norm / (norm + 1e-6))
        return norm
