"""Adapters in a model: new ones, trained ones, and merging them into the weights."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import load_file

from tunewright import RecipeError, RunError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models import safety
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.loading import seeded
from tunewright_hf.models.modules import linear, matching, within
from tunewright_lora import plain

if TYPE_CHECKING:
    from tunewright_lora import Lora

# What an adapter_config.json may say. Other fields of PEFT's are refused where they are not at
# their default: some import modules by name, others make the loading itself change the model.
_FIELDS = {
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "bias",
    "use_rslora",
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "layers_to_transform",
    "layers_pattern",
}
_ABOUT = {
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
}


def fresh(loaded: LoadedModel, request: AdapterRequest, options: "Lora.Options") -> Any:
    """The model with new adapters, which all begin from `request.seed`."""
    mutates = options.init != "default" and request.trainable  # else there is nothing to begin
    config = peft.LoraConfig(
        task_type=_task(request),
        r=options.rank,
        lora_alpha=options.alpha or 2 * options.rank,
        lora_dropout=options.dropout,
        target_modules=targets(loaded, options),
        target_parameters=_experts(loaded.model) if options.experts else None,
        use_dora=options.dora,
        use_rslora=options.rslora,
        bias=options.bias,
        modules_to_save=_also_trained(loaded.model, options.modules_to_save),
        init_lora_weights=options.init if mutates else True,
        inference_mode=not request.trainable,
    )
    expected = _matched(loaded.model, config.target_modules)
    with seeded(request.seed, loaded.model.device):
        try:
            model = _inject(loaded.model, config)
        except (TypeError, ValueError) as error:
            raise RecipeError(str(error).strip().splitlines()[0], place="adapter") from error
    _check_targets(model, expected)
    if mutates:
        plain.save_as_plain(model)
    return model


def trained(loaded: LoadedModel, request: AdapterRequest) -> Any:
    """The model with the adapters of the folder `request.adapter_path`. Raises RunError where they
    are unsafe or do not fit."""
    folder = request.adapter_path
    assert folder is not None
    safety.check_weights(folder, "adapter_model")
    config = _config(folder, request)
    try:
        with seeded(request.seed, loaded.model.device):  # PEFT makes random ones first
            model = _inject(loaded.model, config)
        weights = load_file(folder / "adapter_model.safetensors")
        if (
            request.head != "causal_lm"
        ):  # an adapter of the language model has no head that judges: it begins anew
            own = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
            weights |= {
                name: own[name] for name in own.keys() - weights.keys() if "lora_" not in name
            }
        report = peft.set_peft_model_state_dict(model, weights)
    except (RuntimeError, KeyError, ValueError) as error:
        problem = f"does not fit the model: {' '.join(str(error).split())[:300]}"
        raise RunError(problem, place=str(folder)) from error
    missing = [name for name in report.missing_keys if "lora_" in name]
    if stray := sorted(missing + list(report.unexpected_keys)):
        raise RunError(
            f"does not fit the model: {stray[0]} and {len(stray) - 1} more", place=str(folder)
        )
    if not request.trainable:
        model.eval().requires_grad_(False)
    return model


def _inject(model: Any, config: peft.LoraConfig) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        warnings.filterwarnings(
            "ignore", "fan_in_fan_out is set to", UserWarning
        )  # PEFT sets it right for Conv1D
        return peft.get_peft_model(model, config)


def merge(loaded: LoadedModel) -> LoadedModel:
    """The model with its adapters added to its weights, for export. Raises RunError where weights
    are not finite."""
    try:
        model = loaded.model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise RunError(f"cannot be merged: {error}", place="adapter") from error
    return LoadedModel(
        model, loaded.tokenizer, loaded.processor, loaded.template, loaded.adapter_exclude
    )


def targets(loaded: LoadedModel, options: "Lora.Options") -> list[str]:
    """Names of the modules to adapt: leaves such as q_proj where these mean the same modules, else
    full names."""
    names = linear(loaded.model)
    if options.targets == "all-linear":
        wanted, left_alone = set(names), (*loaded.adapter_exclude, *options.exclude)
    else:
        every = [name for name, _ in loaded.model.named_modules()]
        wanted = matching(every, options.targets, "adapter.targets")
        # what is named is asked for: `lm_head` among the targets takes back that heads are left
        # alone
        asked = [
            part
            for part in loaded.adapter_exclude
            if any(within(target, [part]) for target in options.targets)
        ]
        left_alone = (
            *(part for part in loaded.adapter_exclude if part not in asked),
            *options.exclude,
        )
    wanted = {name for name in wanted if not within(name, left_alone)}
    if options.targets == "all-linear":
        wanted -= _rewritten(loaded.model, wanted)
    if not wanted:
        raise RecipeError("no module is left to adapt", place="adapter.targets")
    _check_tied(loaded.model, wanted)
    leaves = sorted({name.rpartition(".")[2] for name in wanted})
    return leaves if _matched(loaded.model, leaves) == wanted else sorted(wanted)


def _rewritten(model: Any, names: set[str]) -> set[str]:
    """The modules that PEFT would not adapt, though they are named: of some mixtures of experts it
    takes the MLPs outside the experts, dense or shared, for the experts that they had before
    transformers 5. It does so wherever an adapter is loaded, so that one trained otherwise would
    not be what others see in it."""
    config = peft.LoraConfig(target_modules=set(names))
    convert_peft_config_for_transformers(config, model, None)
    return names - set(config.target_modules)


def _check_tied(model: Any, wanted: set[str]) -> None:
    """An adapter on one of two modules that share their weights cannot be merged. Raises
    RecipeError."""
    head = model.get_output_embeddings()
    if head is None or head.weight is not model.get_input_embeddings().weight:
        return
    for name, module in model.named_modules():
        if name in wanted and module in (head, model.get_input_embeddings()):
            problem = f"{name} cannot be adapted: input and output embeddings share their weights"
            raise RecipeError(
                problem, place="adapter.targets", hint="modules_to_save trains a copy of it"
            )


def _also_trained(model: Any, endings: list[str]) -> list[str] | None:
    """Full names, since PEFT would take `norm` for every module whose name ends in these
    letters."""
    return (
        sorted(
            matching(
                (name for name, _ in model.named_modules()), endings, "adapter.modules_to_save"
            )
        )
        or None
    )


def _matched(model: Any, endings: Any) -> set[str]:
    """The modules that PEFT takes for these targets: the names that end in one of them."""
    every = [name for name, _ in model.named_modules()]
    return {name for name in every if any(f".{name}".endswith(f".{ending}") for ending in endings)}


def _experts(model: Any) -> list[str]:
    """Endings of the names of fused experts: parameters (experts, rows, columns)."""
    fused = [
        name for name, p in model.named_parameters() if p.ndim == 3 and within(name, ["experts"])
    ]
    found = {".".join(name.split(".")[-3:]) for name in fused}
    if not found:
        raise RecipeError("the model has no experts", place="adapter.experts")
    return sorted(found)


def _check_targets(model: Any, expected: set[str]) -> None:
    """PEFT rewrites the targets of some mixtures of experts: what it adapted must be what was asked
    for."""
    adapted = set(model.base_model.targeted_module_names)
    if adapted != expected:
        missing = ", ".join(sorted(expected - adapted)[:3]) or "nothing"
        problem = f"PEFT {peft.__version__} leaves out {missing} of this model"
        raise RecipeError(
            problem, place="adapter.targets", hint="name the modules of the attention alone"
        )


def _task(request: AdapterRequest) -> str:
    return (
        "CAUSAL_LM" if request.head == "causal_lm" else "SEQ_CLS"
    )  # the second trains and saves the new head


def _config(folder: Path, request: AdapterRequest) -> peft.LoraConfig:
    found, place = read_json(folder / "adapter_config.json"), str(folder / "adapter_config.json")
    if found.get("peft_type") != "LORA":
        raise RunError(f"is an adapter of type {found.get('peft_type')!r}, not LORA", place=place)
    if found.get("init_lora_weights", True) not in (True, False, "gaussian", "orthogonal", "eva"):
        hint = (
            "save it with PEFT's path_initial_model_for_weight_conversion; tunewright's "
            "own are saved so"
        )
        raise RunError(
            f"belongs to weights that {found['init_lora_weights']} changed", place=place, hint=hint
        )
    defaults = json.loads(json.dumps(peft.LoraConfig().to_dict(), default=sorted))
    strange = sorted(
        name
        for name, value in found.items()
        if name not in _FIELDS | _ABOUT | {"init_lora_weights"}
        and value
        and value != defaults.get(name)
    )
    if strange:
        raise RunError(f"uses {', '.join(strange)}, which are not supported", place=place)
    kept = {name: value for name, value in found.items() if name in _FIELDS}
    return peft.LoraConfig(task_type=_task(request), inference_mode=not request.trainable, **kept)
