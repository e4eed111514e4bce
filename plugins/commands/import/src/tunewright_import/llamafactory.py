"""LLaMA-Factory's configurations: one flat mapping for training, chat, prediction and export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright_import import llamaboard, llamafactory_v1
from tunewright_import import llamafactory_data as data
from tunewright_import import llamafactory_methods as methods
from tunewright_import import llamafactory_parts as parts
from tunewright_import import llamafactory_stages as stages
from tunewright_import.models import family_of, template_of
from tunewright_import.translation import Configuration, Refused, Translation

#: keys of files that other programs read
_FOREIGN = {
    "compute_environment": "is a configuration of `accelerate launch`: in a recipe, "
    "`accelerators: [fsdp]` and `launch: {processes: N}`",
    "zero_optimization": "is for DeepSpeed: in a recipe, `accelerators: [deepspeed]`",
    "use_kt": "is for KTransformers, which is not supported",
    "use_hyper_parallel": "is for HyperParallel, which is not supported",
    "pipeline_model_parallel_size": "is for Megatron, which is not supported: `accelerators: "
    "[fsdp]` shards weights",
}
_PRECISION = {"pure_bf16": "pure_bf16", "bf16": "bf16", "fp16": "fp16"}
_BATCHING = {"random": "random", "group_by_length": "length_grouped"}


def translate(values: Mapping[str, Any], file: Path, recipe_folder: Path) -> Translation:
    """The recipe or command that a configuration stands for.

    file: the configuration's own. recipe_folder: paths of data become relative to it.
    LLaMA-Factory's are relative to the folder in which it is started: the current one. Raises
    Refused.
    """
    for key, reason in _FOREIGN.items():
        if values.get(key) not in (None, False):
            raise Refused(reason)
    if llamaboard.is_saved_page(values):
        values = llamaboard.flat(values)
    if "model" in values:
        return llamafactory_v1.translate(values, file, recipe_folder)
    if "model_name_or_path" not in values:
        raise Refused("names no model: it is no configuration of LLaMA-Factory")
    config, result = (
        Configuration(values, ("trainer.toml", "llamafactory.toml"), file),
        Translation(),
    )
    if "export_dir" in config or "dataset" not in config:
        _talk_or_export(config, result)
    else:
        _train(config, result, recipe_folder)
    config.translate_rest(result)
    result.finish()
    return result


def _train(config: Configuration, result: Translation, recipe_folder: Path) -> None:
    _model(config, result)
    methods.adapter(config, result)
    methods.quantizer(config, result)
    data.sources(config, result, recipe_folder)
    stages.stage(config, result)
    parts.optimizer(config, result)
    parts.accelerators(config, result)
    parts.loggers(config, result)
    _training(config, result)


def _model(config: Configuration, result: Translation) -> None:
    model = str(config.take("model_name_or_path"))
    result.set("model", model)
    if family := family_of(model, config.take("template")):
        result.set("family", family)
    elif config.take("template") and not template_of(str(config.take("template"))):
        raise Refused(f"neither {model} nor its template is of a family here")
    else:
        result.note("model_name_or_path", "said", "the family is found from its config.json")
    if (revision := config.take("model_revision", "main")) != "main":
        result.set("family.revision", revision)
    for key, option in (
        ("freeze_vision_tower", "train_tower"),
        ("freeze_multi_modal_projector", "train_projector"),
    ):
        if config.take(key, True) is False:
            result.set(f"family.{option}", True)
    _template(config, result)


def _template(config: Configuration, result: Translation) -> None:
    name = config.take("template")
    if name and (ours := template_of(str(name))):
        result.set("template", ours)
    elif name:
        result.note("template", "said", f"{name} is not here: the checkpoint's own is used")
    options = {"system": config.take("default_system")}
    options["enable_thinking"] = config.take("enable_thinking")
    options["train_on"] = "last" if config.take("mask_history") else None
    for option, value in options.items():
        if value is not None:
            result.recipe.setdefault("template", "auto")
            result.set(f"template.{option}", value)


def _training(config: Configuration, result: Translation) -> None:
    steps = int(config.take("max_steps", -1))
    epochs = float(config.take("num_train_epochs", 3.0))
    if steps > 0:
        result.set("training.max_steps", steps)
    else:
        result.set("training.epochs", epochs)
    warmup = config.take("warmup_steps", 0) or config.take("warmup_ratio", 0)
    config.take("warmup_ratio")
    if warmup:
        result.set("training.warmup_steps", warmup)
    _schedule(config, result)
    chosen = [_PRECISION[key] for key in _PRECISION if config.take(key)]
    if chosen:
        result.set("training.precision", chosen[0])
    config.take("gradient_checkpointing")  # LLaMA-Factory ignores it
    if not config.take("disable_gradient_checkpointing"):
        result.set("training.activation_checkpointing", True)
    sampling = str(config.take("train_sampling_strategy", "random"))
    if sampling in _BATCHING:
        result.set("training.batching", _BATCHING[sampling])
    else:
        result.note("train_sampling_strategy", "missing", "examples are shuffled")
    if config.take("disable_shuffling"):
        _keep_order(result)
    _saving(config, result)


def _keep_order(result: Translation) -> None:
    """Leave examples in the order of the sources, where nothing else chooses it."""
    stage, dataset = (result.recipe.get(name) for name in ("stage", "dataset"))
    chosen = isinstance(dataset, dict) and dataset.keys() & {"mixing", "streaming"}
    if chosen or (isinstance(stage, dict) and stage.get("packing")):
        problem = "examples that are packed, interleaved or streamed are shuffled"
        result.note("disable_shuffling", "missing", problem)
        return
    result.recipe.setdefault("dataset", "chat")
    result.set("dataset.order", "given")
    result.set("training.batching", "random")


def _schedule(config: Configuration, result: Translation) -> None:
    name = str(config.take("lr_scheduler_type", "linear"))
    if options := config.take("lr_scheduler_kwargs"):
        result.set("scheduler", {"name": name, **options})
    else:
        result.set("training.lr_scheduler_type", name)


def _saving(config: Configuration, result: Translation) -> None:
    strategy, steps = str(config.take("save_strategy", "steps")), config.take("save_steps", 500)
    if strategy == "steps" and steps:
        result.set("training.save_steps", int(steps))
    elif strategy == "epoch":
        result.note("save_strategy", "missing", "checkpoints are written by steps: save_steps")
    if config.take("eval_strategy", "no") == "steps" and (steps := config.take("eval_steps")):
        result.set("training.eval_steps", steps)
    else:
        config.take("eval_steps")
    for key in ("metric_for_best_model", "greater_is_better"):
        if (value := config.take(key)) is not None:
            result.set(f"training.{key}", value)


def _talk_or_export(config: Configuration, result: Translation) -> None:
    """A configuration of chat, api or export names what was trained: the run folder of ours."""
    model, adapter = config.take("model_name_or_path"), config.take("adapter_name_or_path")
    run = str(adapter or model)
    to = config.take("export_dir")
    if config.take("do_predict"):
        raise Refused("predicts only; evaluation is a part of training: `eval_data`")
    bits = config.take("export_quantization_bit")
    is_bare = adapter is None and not run.startswith(("saves/", "./", "/", "outputs/", "output/"))
    if is_bare and to:
        does = "quantizes" if bits else "exports"
        raise Refused(f"{does} {run} as it is; tunewright export takes what a recipe trained")
    folders = run.split(",")
    adapters = "".join(f" --adapter {each}" for each in folders) if len(folders) > 1 else ""
    if to and bits:
        source = config.take("export_quantization_dataset")
        source = f" data={source}" if source else ""
        form = f"gptq --output {to} bits={bits}{source}"
        result.note("export_quantization_bit", "said", "in the environment quantizers")
    else:
        form = f"safetensors --output {to}{adapters}"
    run = folders[0]
    result.command = f"tunewright export {run} --to {form}" if to else f"tunewright chat {run}"
    if not is_bare:
        result.note("model_name_or_path", "said", f"{run} is the run folder of the recipe")
