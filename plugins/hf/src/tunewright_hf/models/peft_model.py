"""PEFT adapters in a model: new ones, trained ones, and merging them into the weights."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from tunewright import RecipeError, RunError, TunewrightError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models import native_loading, peft_config, safety
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.peft_import import without_bitsandbytes
from tunewright_hf.models.peft_targets import ending_in

with without_bitsandbytes():
    import peft
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
    from peft.tuners.tuners_utils import BaseTunerLayer

if TYPE_CHECKING:
    from tunewright_hf.models.peft import PeftAdapter

_HARMLESS: tuple[tuple[str, type[Warning]], ...] = (
    ("`is_gradient_checkpointing` is deprecated", FutureWarning),
    ("fan_in_fan_out is set to", UserWarning),  # PEFT corrects it for Conv1D
    # it supports LayerNorm, and warns about RMSNorm
    ("Unsupported layer type '.*Norm'", UserWarning),
    # AdaLoRA names parameters there, not modules
    ("The following rank_pattern keys did not match", RuntimeWarning),
    # trainable tokens, which PEFT does tie
    ("Model has `tie_word_embeddings=True` and a tied layer", UserWarning),
    # layers that AdaLoRA left without a rank, which PEFT takes for shards
    ("Adapter .* have invalid shape", UserWarning),
)

__all__ = ["fresh", "merged", "restored", "task_type"]


def task_type(request: AdapterRequest) -> str:
    """PEFT's task type. SEQ_CLS and TOKEN_CLS make PEFT train and save the new head."""
    return {"causal_lm": "CAUSAL_LM", "steps": "TOKEN_CLS"}.get(request.head, "SEQ_CLS")


@without_bitsandbytes()
def fresh(adapter: "PeftAdapter", request: AdapterRequest) -> Any:
    """Return the model with a new adapter, initialised from `request.seed`. Raises RecipeError."""
    model = request.loaded.model
    config = adapter.peft_config(request)
    targets = getattr(config, "target_modules", None)
    expected = ending_in(model, targets) if targets else None
    with seeded(request.seed, model.device):
        try:
            model = _inject(model, config)
        except (TypeError, ValueError) as error:
            raise RecipeError(str(error).strip().splitlines()[0], place="adapter") from error
    if expected is not None:
        _check_targets(model, expected)
    if not request.trainable:  # PEFT leaves virtual tokens trainable
        model.requires_grad_(False)
    return model


@without_bitsandbytes()
def restored(adapter: "PeftAdapter", request: AdapterRequest) -> Any:
    """Return the model with the adapter of `request.adapter_path`. Raises RunError if it is unsafe
    or does not fit."""
    folder = request.adapter_path
    assert folder is not None
    safety.check_weights(folder, "adapter_model")
    config = peft_config.read(adapter, request, task_type(request))
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type]
    try:
        with seeded(request.seed, request.loaded.model.device):  # PEFT first initialises at random
            model = _inject(request.loaded.model, config)
        weights = load_file(folder / "adapter_model.safetensors")
        own = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        missing = own.keys() - weights.keys()
        if request.head != "causal_lm":  # a language-model adapter has no head: it is new
            weights |= {name: own[name] for name in missing if prefix not in name}
            missing = {name for name in missing if prefix in name}
        if missing:
            some = f"{min(missing)} and {len(missing) - 1} more"
            raise RunError(f"does not fit the model: lacks {some}", place=str(folder))
        with warnings.catch_warnings():  # to a model on meta, which gets its values later
            warnings.filterwarnings("ignore", ".*which is a no-op")
            with without_harmless_warnings():
                report = peft.set_peft_model_state_dict(model, weights)
    except TunewrightError:
        raise
    except Exception as error:  # PEFT raises various exceptions for invalid files
        problem = f"does not fit the model: {' '.join(str(error).split())[:300]}"
        raise RunError(problem, place=str(folder)) from error
    # PEFT reports virtual tokens, which are outside the model, although it has loaded them
    if strange := set(report.unexpected_keys) - own.keys():
        some = f"{min(strange)} and {len(strange) - 1} more"
        raise RunError(f"does not fit the model: has also {some}", place=str(folder))
    if not request.trainable:
        model.eval().requires_grad_(False)
    return model


@without_bitsandbytes()
def merged(loaded: LoadedModel) -> LoadedModel:
    """Return the plain model with the adapter added to its weights.

    A quantized base is dequantized first, so that no rounding is added. Raises RunError if the type
    of adapter cannot be merged, or if weights are not finite.
    """
    config = loaded.model.peft_config["default"]
    if config.is_prompt_learning:
        problem = f"{config.peft_type.value} cannot be merged: it adds tokens, not weights"
        raise RunError(problem, place="adapter")
    try:
        model = _dequantized(loaded.model) if loaded.quantized else loaded.model
        model = model.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError) as error:
        raise RunError(f"cannot be merged: {error}", place="adapter") from error
    return LoadedModel(
        model,
        loaded.tokenizer,
        loaded.processor,
        loaded.template,
        loaded.adapter_exclude,
        template_options=loaded.template_options,
        media_inputs=loaded.media_inputs,
    )


def _dequantized(model: Any) -> Any:
    """The model with the same adapter on dequantized weights.

    PEFT would merge into the quantized weights, which rounds the sum anew.
    """
    config = model.peft_config["default"]
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    state = {name: tensor.detach().clone() for name, tensor in state.items()}
    base = native_loading.dequantized(_unloaded(model))
    model = _inject(base, config)
    peft.set_peft_model_state_dict(model, state)
    return model.eval()


def _unloaded(model: Any) -> Any:
    """The base model. PEFT's unload reads the plain weight of each layer, and layers of hqq,
    gptqmodel and aqlm have none; that of IA3 refuses weights of bitsandbytes."""
    base = model.get_base_model()
    for note in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        vars(base).pop(note, None)
    for name, module in [*base.named_modules()]:
        if isinstance(module, BaseTunerLayer) and not hasattr(module.get_base_layer(), "weight"):
            base.set_submodule(name, module.get_base_layer())
    return model.unload()


def _inject(model: Any, config: Any) -> Any:
    with without_harmless_warnings():
        return peft.get_peft_model(model, config)


@contextmanager
def without_harmless_warnings() -> Iterator[None]:
    """Hide warnings of PEFT and transformers about what is right."""
    with warnings.catch_warnings():
        for message, category in _HARMLESS:
            warnings.filterwarnings("ignore", message, category)
        yield


def _check_targets(model: Any, expected: set[str]) -> None:
    """Raise RecipeError if PEFT adapted other modules: it rewrites the targets of some mixtures of
    experts."""
    adapted = set(model.base_model.targeted_module_names)
    if adapted != expected:
        missing = ", ".join(sorted(expected - adapted)[:3]) or "nothing"
        raise RecipeError(
            f"PEFT {peft.__version__} leaves out {missing} of this model",
            place="adapter.targets",
            hint="name the modules of the attention alone",
        )
