"""Combine several LoRA adapters of one model into one, for export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file

from tunewright import RunError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models import peft_config, safety
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.peft_import import without_bitsandbytes
from tunewright_hf.models.peft_lora import LoraAdapter

with without_bitsandbytes():
    import peft

__all__ = ["CombinationType", "combined"]

CombinationType = Literal[
    "cat", "svd", "linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"
]


@without_bitsandbytes()
def combined(
    adapter: LoraAdapter,
    loaded: LoadedModel,
    parts: Sequence[tuple[Path, float]],
    combination_type: CombinationType = "cat",
    *,
    density: float | None = None,
    seed: int = 42,
) -> LoadedModel:
    """Load adapters into the model and combine them, weighted, into one; for inference or export.

    adapter: an instance of the plugin that reads them. parts: (PEFT folder, weight); weights may be
    negative. combination_type: as PEFT's add_weighted_adapter. cat: the exact weighted sum, whose
    rank is the sum of the ranks. svd: the same, cut to the largest rank. linear, ties, dare_linear,
    dare_ties, magnitude_prune: of matrices A and B, which need the same rank. density: share of
    values that ties, DARE and magnitude_prune keep. Raises RunError if an adapter is unsafe, does
    not fit the model, or cannot be combined.
    """
    configs = [_config(adapter, loaded, folder) for folder, _ in parts]
    loaded = adapter.load_external(loaded, parts[0][0])
    model, names = loaded.model, ["default"]
    for (folder, _), config in zip(parts[1:], configs[1:], strict=True):
        names.append(f"adapter_{len(names)}")
        _add(model, names[-1], folder, config)
    weights = [weight for _, weight in parts]
    try:
        with seeded(seed, model.device):  # DARE drops values at random
            model.add_weighted_adapter(
                names, weights, "combined", combination_type=combination_type, density=density
            )
    except (ValueError, RuntimeError) as error:
        problem = f"cannot be combined: {' '.join(str(error).split())[:300]}"
        raise RunError(problem, place=str(parts[0][0])) from error
    state = peft.get_peft_model_state_dict(
        model, adapter_name="combined", save_embedding_layers=False
    )
    state = {name: tensor.detach().clone() for name, tensor in state.items()}
    config = model.peft_config["combined"]
    config.use_rslora = False  # A and B hold the scale; PEFT sets alpha for a factor of 1 without
    config.init_lora_weights = True
    # alone, under the name that PEFT saves at the top of a folder
    with seeded(seed, model.device):
        loaded.model = peft.get_peft_model(model.unload(), config)
    peft.set_peft_model_state_dict(loaded.model, state)
    loaded.model.eval().requires_grad_(False)
    loaded.trained = frozenset()
    return loaded


def _config(adapter: LoraAdapter, loaded: LoadedModel, folder: Path) -> Any:
    request = AdapterRequest(loaded, adapter_path=folder, trainable=False)
    config = peft_config.read(adapter, request, "CAUSAL_LM")
    more = ("modules_to_save", "trainable_token_indices")
    for field, plain in (("use_dora", False), ("bias", "none"), *((each, None) for each in more)):
        if (found := getattr(config, field)) and found != plain:
            raise RunError(
                "holds more than low-rank matrices, and cannot be combined",
                place=f"{folder / 'adapter_config.json'}: {field}",
            )
    return config


def _add(model: Any, name: str, folder: Path, config: Any) -> None:
    """Add a further adapter to the model. Raises RunError."""
    safety.check_weights(folder, "adapter_model")
    try:
        with seeded(0, model.device):  # PEFT first initialises at random
            model.add_adapter(name, config)
        weights = load_file(folder / "adapter_model.safetensors")
        own = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        report = peft.set_peft_model_state_dict(model, weights, adapter_name=name)
    except Exception as error:  # PEFT raises various exceptions for invalid files
        problem = f"does not fit the model: {' '.join(str(error).split())[:300]}"
        raise RunError(problem, place=str(folder)) from error
    if strange := own.keys() ^ weights.keys() or set(report.unexpected_keys):
        raise RunError(
            f"does not fit the model: {min(strange)} and {len(strange) - 1} more are not in both",
            place=str(folder),
        )
