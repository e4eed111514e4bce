"""Choose linear layers by the signal-to-noise ratio of their weights."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_hf.models.modules import layers, linear, matching, within

if TYPE_CHECKING:
    from tunewright_spectrum import Spectrum


def best_of_each_type(loaded: LoadedModel, options: "Spectrum.Options") -> list[str]:
    """Full names of the chosen modules. A type is a module's name within its layer, such as
    self_attn.q_proj. Raises RecipeError if the model is quantized or has no such modules."""
    model = loaded.model
    if loaded.quantized:
        raise RecipeError(
            f"{min(loaded.quantized)} is quantized and cannot be trained",
            place="adapter",
            hint="set adapter: lora, or load the model without a quantizer",
        )
    stack, _ = layers(model, loaded.adapter_exclude)
    names = [
        name
        for name in linear(model, loaded.linear_types)
        if name.startswith(f"{stack}.") and not within(name, loaded.adapter_exclude)
    ]
    if options.modules != "all-linear":
        chosen = matching(names, options.modules, "adapter.modules")
        names = [name for name in names if name in chosen]
    by_type: dict[str, list[str]] = {}
    for name in names:
        inside = name.removeprefix(f"{stack}.").split(".")
        kind = ".".join(part for part in inside if not part.isdigit())
        by_type.setdefault(kind, []).append(name)
    best = []
    for same in by_type.values():
        ratios = {name: signal_to_noise(model.get_submodule(name).weight) for name in same}
        same.sort(key=lambda name: -ratios[name])
        best += same[: max(1, int(options.top_fraction * len(same)))]
    return best


@torch.no_grad()
def signal_to_noise(weight: Tensor) -> float:
    """Ratio of the singular values above the Marchenko-Pastur threshold to those below, divided by
    the largest, as the authors' implementation computes it.

    weight: (m, n). A matrix of noise alone has no singular value above the threshold. The standard
    deviation of the noise is estimated from the interquartile range of the singular values.
    """
    values = torch.linalg.svdvals(weight.float())
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75], device=values.device))
    sigma = (high - low) / 1.349  # that of a normal distribution
    threshold = sigma * (1 + math.sqrt(min(weight.shape) / max(weight.shape)))
    is_signal = values > threshold
    signal, noise = (values * is_signal).sum(), (values * ~is_signal).sum()
    return float(signal / noise / values[0]) if noise > 0 else math.inf
