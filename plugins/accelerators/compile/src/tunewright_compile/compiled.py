"""Compile modules for the time of a training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunewright_hf.models.modules import base_model, layers
from tunewright_hf.training.forward_wrapping import wrapped_in_training

if TYPE_CHECKING:
    from tunewright_compile import Compile


def parts(model: Any, per_layer: bool) -> list[nn.Module]:
    """The modules to compile. Not the head: the loss scores trained positions in chunks."""
    base = base_model(model)
    if not per_layer:
        return [base.base_model]
    name, _ = layers(base, ())
    return list(base.get_submodule(name))


@contextmanager
def compiled(modules: list[nn.Module], options: "Compile.Options") -> Iterator[None]:
    """Compile the forward of the modules for training passes. Compiled code is freed afterwards."""

    def wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(
            forward, backend=options.backend, mode=options.mode, dynamic=options.dynamic
        )

    try:
        with wrapped_in_training(modules, wrap):
            yield
    finally:
        torch.compiler.reset()
