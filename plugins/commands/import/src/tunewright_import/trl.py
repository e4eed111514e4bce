"""TRL's configurations: YAML files of `trl sft --config FILE`, and scripts with its command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright_import import trainer, trl_rollouts
from tunewright_import.llamafactory_parts import loggers, optimizer
from tunewright_import.models import family_of
from tunewright_import.translation import Configuration, Refused, Translation

#: verb of the command → stage
VERBS = {"sft": "sft", "dpo": "dpo", "kto": "kto", "reward": "reward", "grpo": "grpo"}
#: stage that TRL has without a verb
_ONLINE = "online_dpo"
#: verb → learning rate and length by default
_DEFAULTS = {
    "sft": {"learning_rate": 2e-5, "max_length": 1024},
    "dpo": {"learning_rate": 1e-6, "max_length": 1024},
    "kto": {"learning_rate": 1e-6, "max_length": 1024},
    "reward": {"learning_rate": 1e-4, "max_length": 1024},
    "grpo": {"learning_rate": 1e-6},
    _ONLINE: {"learning_rate": 5e-7, "max_new_tokens": 64, "temperature": 0.9},
}
_LORA_DEFAULTS = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05}
#: key that no other method has → verb
_TELLTALE = {
    "reward_model_path": _ONLINE,
    "missing_eos_penalty": _ONLINE,
    "reward_funcs": "grpo",
    "num_generations": "grpo",
    "desirable_weight": "kto",
    "undesirable_weight": "kto",
    "center_rewards_coefficient": "reward",
    "precompute_ref_log_probs": "dpo",
    "loss_weights": "dpo",
    "ld_alpha": "dpo",
    "beta": "dpo",
    "label_smoothing": "dpo",
}
_LORA = {
    "rank": "lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "targets": "lora_target_modules",
    "modules_to_save": "lora_modules_to_save",
    "rslora": "use_rslora",
    "dora": "use_dora",
}
_OF_STAGES = (
    *("packing", "loss_type", "beta", "label_smoothing", "ld_alpha", "desirable_weight"),
    *("undesirable_weight", "center_rewards_coefficient", "num_generations", "temperature"),
    *("max_completion_length", "top_p", "top_k", "scale_rewards", "mask_truncated_completions"),
    *("loss_weights", "reward_funcs", "reward_model_name_or_path", "num_iterations"),
    *("entropy_coef", "use_bias_correction_kl", "importance_sampling_level"),
    *("epsilon", "epsilon_high", "delta", "sapo_temperature_pos", "sapo_temperature_neg"),
    *("reward_model_path", "missing_eos_penalty", "max_new_tokens"),
)


def translate(values: Mapping[str, Any], file: Path, recipe_folder: Path) -> Translation:
    """The recipe of a configuration. Its key `_verb`, of scripts, names the method. Raises
    Refused."""
    if "model_name_or_path" not in values:
        raise Refused("names no model_name_or_path: it is no configuration of TRL")
    result = Translation()
    verb = _verb(result, values)
    values = {
        "output_dir": "trainer_output",
        **_DEFAULTS[verb],
        **(_LORA_DEFAULTS if values.get("use_peft") else {}),
        **values,
    }
    config = Configuration(values, ("trainer.toml", "trl.toml"), file)
    config.take("_verb")
    trainer.launch(dict(config.take("_variables") or {}), result)
    _model(config, result)
    _adapter(config, result)
    _data(config, result, recipe_folder)
    _stage(config, result, verb)
    optimizer(config, result)
    trainer.accelerators(config, result, "attn_implementation")
    loggers(config, result)
    trainer.training(config, result)
    config.translate_rest(result)
    result.finish()
    return result


def _verb(result: Translation, values: Mapping[str, Any]) -> str:
    if "_verb" in values:
        return str(values["_verb"])
    for key, verb in _TELLTALE.items():
        if values.get(key) is not None:
            result.note("", "said", f"the stage {VERBS.get(verb, verb)} is told by the key {key}")
            return verb
    result.note("", "said", "a file of TRL's does not say its method: it is taken for sft")
    return "sft"


def _model(config: Configuration, result: Translation) -> None:
    model = str(config.take("model_name_or_path"))
    result.set("model", model)
    if family := family_of(model):
        result.set("family", family)
    else:
        result.note("model_name_or_path", "said", "the family is found from its config.json")
    if (revision := config.take("model_revision", "main")) != "main":
        result.set("family.revision", revision)
    if (dtype := config.take("dtype", config.take("torch_dtype"))) not in (None, "auto"):
        result.set("family.dtype", dtype)
    if template := config.take("chat_template_path"):
        result.note("chat_template_path", "missing", f"{template}: write it as a template plugin")


def _adapter(config: Configuration, result: Translation) -> None:
    if config.take("use_peft"):
        trainer.lora(config, result, _LORA)
        if config.take("lora_target_parameters"):
            result.set("adapter.experts", True)
    else:
        result.set("adapter", "full")
        keys = (*_LORA.values(), "lora_target_parameters", "lora_task_type")
        config.ignore(keys, result, "has no effect without use_peft")
    four, eight = config.take("load_in_4bit"), config.take("load_in_8bit")
    kind, nested = config.take("bnb_4bit_quant_type", "nf4"), config.take("use_bnb_nested_quant")
    if four:
        options = {"bits": 4, "type": kind, "double_quantization": bool(nested)}
        result.plugin("quantizer", "bitsandbytes", options)
    elif eight:
        result.plugin("quantizer", "bitsandbytes", {"bits": 8})


def _data(config: Configuration, result: Translation, recipe_folder: Path) -> None:
    written = config.take("datasets")
    entries = [_mixed(each, config, recipe_folder, result) for each in written or []]
    if name := config.take("dataset_name"):
        entry = _source(str(name), config, recipe_folder)
        for key, option in (("dataset_config", "subset"), ("dataset_train_split", "split")):
            if (value := config.take(key)) not in (None, "train"):
                entry[option] = value
        entries.append(entry)
    if not entries:
        raise Refused("names no dataset_name")
    if (column := config.take("dataset_text_field", "text")) != "text":
        for entry in entries:
            entry["columns"] = {"text": column}
    result.set("data", entries)
    strategy = str(config.take("eval_strategy", "no"))
    if name and strategy != "no":
        split = config.take("dataset_test_split", "test")
        result.set("eval_data", {"test": [{**entries[-1], "split": split}]})
    config.take("dataset_test_split")
    options: dict[str, Any] = {}
    if config.take("dataset_streaming") or config.take("streaming"):
        options["streaming"] = True
    if (workers := config.take("dataset_num_proc")) and int(workers) > 1:
        options["workers"] = int(workers)
    if options:
        result.plugin("dataset", "chat", options)


def _source(name: str, config: Configuration, recipe_folder: Path) -> dict[str, Any]:
    if config.find(name) or Path(name).suffix in (".json", ".jsonl", ".csv", ".parquet", ".txt"):
        return {"path": config.relative(name, recipe_folder)}
    return {"path": name, "hub": "hf"}


def _mixed(
    each: Mapping[str, Any], config: Configuration, recipe_folder: Path, result: Translation
) -> dict[str, Any]:
    """An item of `datasets`, TRL's mixture."""
    fields = dict(each)
    entry = _source(str(fields.pop("path", "")), config, recipe_folder)
    if files := fields.pop("data_files", None):
        listed = files if isinstance(files, list) else [files]
        entry = {"path": config.relative(str(listed[0]), recipe_folder)}
    for key, option in (("name", "subset"), ("split", "split")):
        if (value := fields.pop(key, None)) not in (None, "train"):
            entry[option] = value
    for key in fields:
        result.note(f"datasets.{key}", "missing", "has no counterpart")
    return entry


def _stage(config: Configuration, result: Translation, verb: str) -> None:
    options: dict[str, Any] = {}
    if verb == "sft":
        if config.take("packing"):
            options["packing"] = True
        if (loss := str(config.take("loss_type", "nll"))) == "dft":
            options["loss"] = "dft"
        elif loss not in ("nll", "chunked_nll"):
            raise Refused(f"trains SFT with the loss {loss}; there are nll, dft and eaft")
    elif verb in ("dpo", "kto"):
        _preferences(config, options, verb)
    elif verb == "reward":
        if coefficient := config.take("center_rewards_coefficient"):
            options["center_coefficient"] = coefficient
    elif verb == _ONLINE:
        trl_rollouts.online_dpo(config, options)
    else:
        trl_rollouts.grpo(config, result, options)
    config.ignore(_OF_STAGES, result, f"is no option of {verb}")
    result.plugin("stage", VERBS.get(verb, verb), options)


def _preferences(config: Configuration, options: dict[str, Any], verb: str) -> None:
    if (beta := config.take("beta")) is not None:
        options["beta"] = beta
    losses = config.take("loss_type") or []
    losses = losses if isinstance(losses, list) else [losses]
    weights = config.take("loss_weights") or [1.0] * len(losses)
    if len(losses) > 1 and "sft" in losses:
        options["sft_weight"] = weights[losses.index("sft")]
    mixed = {name: weight for name, weight in zip(losses, weights, strict=False) if name != "sft"}
    if len(mixed) > 1:
        options["loss"] = mixed
    elif mixed and next(iter(mixed)) not in ("sigmoid", "kto"):
        options["loss"] = next(iter(mixed))
    names = {"label_smoothing": "label_smoothing", "ld_alpha": "ld_alpha"}
    if verb == "kto":
        names = {"desirable_weight": "desirable_weight", "undesirable_weight": "undesirable_weight"}
    for key, option in names.items():
        if value := config.take(key):
            options[option] = value
