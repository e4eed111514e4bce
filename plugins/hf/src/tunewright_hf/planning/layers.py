"""Equal layers: a model with few of them is measured, and the cost of all is extrapolated.

What a layer adds to the memory at a given point of a step does not depend on how many others there
are. So the first and the last layer of each kind are kept, the model is measured once with these
and, for each kind, once with a further one.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from tunewright.types import LoadedModel
from tunewright_hf.models.modules import layers
from tunewright_hf.planning.measure import Measurement
from tunewright_hf.planning.storages import Segment

__all__ = ["LayerKinds", "extrapolated", "keep_layers"]


@dataclass(frozen=True)
class LayerKinds:
    """Layers of a model by kind: those of a kind have equal parameters, trained or not."""

    numbers: tuple[tuple[int, ...], ...]  # of each kind: the numbers of its layers

    @classmethod
    def of(cls, loaded: LoadedModel) -> "LayerKinds":
        """The kinds of a model's layers."""
        name, _ = layers(loaded.model, loaded.adapter_exclude)
        stack = loaded.model.get_submodule(name)
        types = _types(loaded.model) or [""] * len(stack)
        found: dict[Hashable, list[int]] = {}
        for number, (layer, of_type) in enumerate(zip(stack, types, strict=True)):
            found.setdefault((of_type, _kind(layer)), []).append(number)
        return cls(tuple(tuple(numbers) for numbers in found.values()))

    def kept(self, more: int | None = None) -> list[int]:
        """Layers to measure: the first and the last of each kind. more: a kind of which a third
        one is kept."""
        chosen: set[int] = set()
        for kind, numbers in enumerate(self.numbers):
            chosen |= {numbers[0], numbers[-1]} | ({numbers[1]} if kind == more else set())
        return sorted(chosen)

    def left_out(self) -> dict[int, int]:
        """Kind → layers that `kept` leaves out, of kinds that have some."""
        return {kind: len(each) - 2 for kind, each in enumerate(self.numbers) if len(each) > 2}


def _types(model: Any) -> Sequence[str] | None:
    """Kinds of attention, in models where layers differ in it."""
    return getattr(model.config.get_text_config(), "layer_types", None)


def _kind(layer: nn.Module) -> Hashable:
    parameters = (
        (name, each.shape, each.dtype, each.requires_grad)
        for name, each in layer.named_parameters()
    )
    return tuple(parameters), tuple(type(each) for each in layer.modules())


def keep_layers(loaded: LoadedModel, numbers: Sequence[int]) -> str:
    """Remove all other layers from the model, whose names in `loaded` follow. Returns the name of
    the list of layers."""
    name, _ = layers(loaded.model, loaded.adapter_exclude)
    parent, _, own = name.rpartition(".")
    model, text = loaded.model, loaded.model.config.get_text_config()
    before = {each: known for known, each in model.named_parameters()}
    stack = model.get_submodule(name)
    kept = [stack[each] for each in numbers]
    for place, layer in enumerate(kept):
        for each in layer.modules():
            if hasattr(each, "layer_idx"):  # the layer's place in a cache
                each.layer_idx = place
    setattr(model.get_submodule(parent), own, nn.ModuleList(kept))
    if types := _types(model):
        text.layer_types = [types[each] for each in numbers]
    text.num_hidden_layers = len(numbers)
    places = {f"{name}.{number}.": f"{name}.{place}." for place, number in enumerate(numbers)}
    after = {known: before[each] for known, each in model.named_parameters()}
    if loaded.trained is not None:
        loaded.trained = frozenset(now for now, was in after.items() if was in loaded.trained)
    loaded.quantized = frozenset(
        each for was in loaded.quantized if (each := _moved(was, name, places)) is not None
    )
    scales = loaded.learning_rate_scales
    loaded.learning_rate_scales = {now: scales[was] for now, was in after.items() if was in scales}
    return name


def _moved(module: str, stack: str, places: Mapping[str, str]) -> str | None:
    """Name of a module among the kept layers; None if its layer was removed."""
    if not module.startswith(f"{stack}."):
        return module
    number = module[len(stack) + 1 :].partition(".")[0]
    now = places.get(f"{stack}.{number}.")
    return None if now is None else now + module.removeprefix(f"{stack}.{number}.")


def extrapolated(
    kinds: LayerKinds, base: Measurement, measure: Callable[[list[int]], Measurement]
) -> Measurement:
    """The measurement of the whole model.

    base: of the model with the layers `kinds.kept()`. measure: measures it with others.
    """
    found = replace(base, segments=dict(base.segments), held=Counter(base.held))
    for kind, count in kinds.left_out().items():
        more = measure(kinds.kept(kind))
        found.flops += count * (more.flops - base.flops)
        found.seconds += count * (more.seconds - base.seconds)
        for part in more.held:
            found.held[part] += count * (more.held[part] - base.held[part])
        for key in found.segments.keys() & more.segments.keys():
            found.segments[key] = _grown(
                found.segments[key], base.segments[key], more.segments[key], count
            )
    return found


def _grown(segment: Segment, base: Segment, more: Segment, count: int) -> Segment:
    parts = {
        part: max(0, segment.parts.get(part, 0) + count * (each - base.parts.get(part, 0)))
        for part, each in more.parts.items()
    }
    return Segment(segment.peak + count * (more.peak - base.peak), parts)
