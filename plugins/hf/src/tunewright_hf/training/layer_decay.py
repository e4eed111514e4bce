"""Layer-wise decay of the learning rate: "discriminative fine-tuning" of ULMFiT (Howard and Ruder
2018, arXiv:1801.06146)."""

from collections.abc import Iterable

from torch import nn

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_hf.models.media_options import MediaOptions
from tunewright_hf.models.media_parts import frozen_parts
from tunewright_hf.models.modules import base_model, layers, within

__all__ = ["layer_decay_scales"]

#: what PEFT calls the module that it stands around
_WRAPPED = (".base_layer", ".original_module")


def layer_decay_scales(loaded: LoadedModel, names: Iterable[str], decay: float) -> dict[str, float]:
    """Factor of the learning rate by parameter name, the adapter's own included; those that are not
    named have 1.

    names: of the trained parameters. With L layers, parameters of layer i (0 is the first) get
    decay ** (L - 1 - i); those of embeddings and media towers decay ** L; others, such as the final
    norm and an output head of its own, 1. Matrices of an adapter count as the module that they
    change. Raises RecipeError if the model has no list of layers.
    """
    own = dict(loaded.learning_rate_scales)
    if decay == 1:
        return own
    media: tuple[str, ...] = ()
    if loaded.processor is not None:
        media = frozen_parts(base_model(loaded.model), MediaOptions())
    try:
        stack, count = layers(loaded.model, media)
    except RecipeError as error:
        place = "training.layer_lr_decay"
        raise RecipeError(error.problem, place=place, hint="leave it out") from error
    first = [*media, *_embeddings(loaded.model)]
    for name in names:
        if name.startswith(f"{stack}."):
            number = int(name.removeprefix(f"{stack}.").partition(".")[0])
            own[name] = own.get(name, 1.0) * decay ** (count - 1 - number)
        elif within(name, first):
            own[name] = own.get(name, 1.0) * decay**count
    return own


def _embeddings(model: nn.Module) -> Iterable[str]:
    """Names of the embeddings, without what PEFT puts around them."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            for ending in _WRAPPED:
                name = name.removesuffix(ending)
            yield name
