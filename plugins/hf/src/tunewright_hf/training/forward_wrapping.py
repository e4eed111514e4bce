"""Wrap the forward of modules during a training, for accelerators."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn

from tunewright_hf.losses.causal_lm import replaced

__all__ = ["wrapped_in_training"]

Forward = Callable[..., Any]


@contextmanager
def wrapped_in_training(
    modules: Iterable[nn.Module], wrap: Callable[[Forward], Forward]
) -> Iterator[None]:
    """Call `wrap(forward)` in place of each module's forward, but only in passes that a gradient is
    computed of: evaluation, sampling and references run the model as it is.

    Parameters keep their names. Every module has its own forward again when the context ends.
    """
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(replaced(module, "forward", _switching(module, wrap)))
        yield


def _switching(module: nn.Module, wrap: Callable[[Forward], Forward]) -> Forward:
    own = module.forward
    wrapped = wrap(own)

    @wraps(own)  # transformers reads the names of a forward's arguments
    def forward(*args: Any, **kwargs: Any) -> Any:
        in_training = module.training and torch.is_grad_enabled()
        return (wrapped if in_training else own)(*args, **kwargs)

    return forward
