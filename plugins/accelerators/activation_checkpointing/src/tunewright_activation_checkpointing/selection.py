"""Selection of the modules that recompute their activations."""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from tunewright import RecipeError
from tunewright_hf.models.modules import base_model, layers

#: names of a layer's children in the classes of transformers
_NAMES = {
    "attention": re.compile(r"attn|attention"),
    "mlp": re.compile(r"mlp|feed_?forward|ffn|moe"),
}
_NORM = re.compile(r"norm|_ln|ln_")


def selected(model: Any, every: int, operators: Collection[str]) -> list[nn.Module]:
    """Every n-th layer of the language model, or only their attention or MLP modules. Raises
    RecipeError where a layer has none of a name that is known."""
    base = base_model(model)
    name, _ = layers(base, ())
    chosen = list(base.get_submodule(name))[every - 1 :: every]
    if not operators:
        return chosen
    return [module for layer in chosen for module in _parts(layer, operators)]


def checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward that recomputes its activations in the backward pass, with the same dropout."""
    return partial(checkpoint, forward, use_reentrant=False)


def _parts(layer: nn.Module, operators: Collection[str]) -> list[nn.Module]:
    children = {name: child for name, child in layer.named_children() if not _NORM.search(name)}
    found = [
        child
        for operator in operators
        for name, child in children.items()
        if _NAMES[operator].search(name)
    ]
    if not found:
        raise RecipeError(
            f"layers of this model have no {' or '.join(operators)}, but {', '.join(children)}",
            place="accelerators",
            hint="leave out operators: whole layers are recomputed",
        )
    return found
