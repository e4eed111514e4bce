"""Insert layers without effect into a model."""

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_hf.models.modules import layers

#: modules and parameters whose output is added to the residual stream
OUTPUTS = frozenset(
    {"o_proj", "out_proj", "c_proj", "dense", "wo"}  # attention
    | {"down_proj", "dense_4h_to_h", "fc2", "fc_out", "w2", "output_linear"}  # MLPs and experts
)
#: lists of layer numbers in configs; other lists about layers have an item for each
_NUMBERS = ("mlp_only_layers",)
_PER_LAYER = re.compile("layer|block")


def expanded_layers(model: Any) -> list[int]:
    """Numbers of the layers that an expansion has inserted, as config.json records them. Raises
    RecipeError if the model has no such layers."""
    config = model.config.get_text_config()
    found = getattr(config, "expanded_layers", [])
    count = config.num_hidden_layers
    if not isinstance(found, list) or not all(
        isinstance(each, int) and 0 <= each < count for each in found
    ):
        raise RecipeError(
            f"expanded_layers of config.json is {str(found)[:60]}, expected numbers of the "
            f"{count} layers",
            place="model",
        )
    return found


def expand(loaded: LoadedModel, wanted: int | None) -> list[int]:
    """Insert copies of layers evenly, in place, and return their numbers.

    The copy of a layer follows it, with output projections of 0. wanted: number of new layers;
    None: a quarter of the model's. Raises RecipeError if the model is quantized or too small, or if
    its architecture has parts that would not fit the new layers.
    """
    model = loaded.model
    stack, count = layers(model, loaded.adapter_exclude)
    wanted = wanted or max(1, count // 4)
    if wanted > count:
        raise RecipeError(f"the model has {count} layers, not {wanted}", place="adapter.new_layers")
    if loaded.quantized:
        raise RecipeError(
            "layers of a quantized model cannot be trained",
            place="adapter",
            hint="set adapter: lora, or load the model without a quantizer",
        )
    expected = _logits(model)
    copied = [(number + 1) * count // wanted - 1 for number in range(wanted)]  # old numbers
    _insert(model, stack, copied)
    new = [old + place + 1 for place, old in enumerate(copied)]
    model.config.get_text_config().expanded_layers = new
    found = _logits(model)
    unchanged = expected is None or found is None or torch.equal(expected, found)
    if not unchanged or _parts(model, stack) != _parts(_from_config(model), stack):
        raise RecipeError(
            f"{type(model).__name__} has layers that cannot be copied without effect",
            place="adapter",
            hint="set adapter: freeze or lora",
        )
    return new


def _insert(model: Any, stack: str, copied: list[int]) -> None:
    config = model.config.get_text_config()
    shared = {id(each): each for each in (config, model.config)}  # which layers refer to
    old = list(model.get_submodule(stack))
    grown: list[nn.Module] = []
    for number, layer in enumerate(old):
        grown.append(layer)
        if number in copied:
            grown.append(copy.deepcopy(layer, dict(shared)))
            _silence(grown[-1])
    for number, layer in enumerate(grown):
        for module in layer.modules():
            if getattr(module, "layer_idx", None) is not None:  # its place in the cache
                module.layer_idx = number
    model.set_submodule(stack, nn.ModuleList(grown))
    grow_config(config, copied, len(old))


@torch.no_grad()
def _silence(layer: nn.Module) -> None:
    """Set the output projections of a layer to 0, so that it adds nothing to its input."""
    for name, parameter in layer.named_parameters():
        if OUTPUTS & set(name.split(".")):
            parameter.zero_()


def grow_config(config: Any, copied: list[int], count: int) -> None:
    """Give the copied layers their items in the lists of a config, and count them."""
    for name, value in list(vars(config).items()):
        if name in _NUMBERS and value:
            moved = [number + sum(old < number for old in copied) for number in value]
            moved += [
                number + sum(old < number for old in copied) + 1
                for number in value
                if number in copied
            ]
            setattr(config, name, sorted(moved))
        elif isinstance(value, list) and len(value) == count and _PER_LAYER.search(name):
            grown = [item for n, item in enumerate(value) for _ in range(1 + (n in copied))]
            setattr(config, name, grown)
    config.num_hidden_layers = count + len(copied)


def _logits(model: Any) -> Tensor | None:
    """Logits of a short text; None for a model without weights."""
    device = next(model.parameters()).device
    if device.type == "meta":
        return None
    training = model.training
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=torch.arange(4, device=device)[None]).logits
    model.train(training)
    return found


def _from_config(model: Any) -> Any:
    """The model that transformers builds from the grown config."""
    with torch.device("meta"):
        return type(model)(copy.deepcopy(model.config))


def _parts(model: Any, stack: str) -> dict[str, Any]:
    """Shapes of the layers' parameters, and the numbers and texts that their modules hold, such as
    a window or a factor that depends on the number of layers."""
    layers = model.get_submodule(stack)
    found: dict[str, Any] = {name: each.shape for name, each in layers.named_parameters()}
    for name, module in layers.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, int | float | str) and key != "training" and key[0] != "_":
                found[f"{name}.{key}"] = value
    return found
