"""Axolotl's configurations. See https://docs.axolotl.ai for their keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright_import.axolotl_parts import accelerators, loggers, optimizer
from tunewright_import.models import family_of, template_of
from tunewright_import.translation import Configuration, Refused, Translation, names_in

_STAGES = {"dpo": "dpo", "ipo": "dpo", "orpo": "orpo", "simpo": "simpo", "kto": "kto"}
_SAME = ("cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")
#: Axolotl's names of templates, where ours differ
_TEMPLATES = {
    "mistral_v1": "mistral",
    "phi_3": "phi",
    "phi_35": "phi",
    "qwen_25": "qwen",
    "deepseek_v2": "deepseek",
}


def translate(values: Mapping[str, Any], file: Path, recipe_folder: Path) -> Translation:
    """The recipe of a configuration.

    file: the configuration's own. recipe_folder: paths of data become relative to it. Raises
    Refused.
    """
    if "base_model" not in values:
        raise Refused("names no base_model: it is no configuration of Axolotl")
    config, result = Configuration(values, ("axolotl.toml",), file), Translation()
    model = str(config.take("base_model"))
    result.set("model", model)
    if family := family_of(model):
        result.set("family", family)
    else:
        result.note("base_model", "said", "the family is found from its config.json")
    if tokens := config.take("tokens"):
        result.set("family.new_tokens", names_in(tokens))
    _adapter(config, result)
    _template(config, result)
    _stage(config, result)
    _data(config, result, recipe_folder)
    optimizer(config, result)
    accelerators(config, result)
    loggers(config, result)
    _training(config, result)
    config.translate_rest(result)
    result.finish()
    return result


def _adapter(config: Configuration, result: Translation) -> None:
    name = config.take("adapter")
    bits = 4 if config.take("load_in_4bit") or name == "qlora" else None
    bits = 8 if config.take("load_in_8bit") else bits
    if name in ("lora", "qlora"):
        _lora(config, result)
        if bits:
            result.plugin("quantizer", "bitsandbytes", {"bits": bits})
        if bits == 4:
            result.note("load_in_4bit", "said", "double quantization is on, Axolotl's is off")
    elif name in (None, ""):
        _own_weights(config, result)
    else:
        raise Refused(f"trains the adapter {name}, which is not translated")
    for key in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_linear"):
        config.take(key)  # stay in the files of full fine-tuning
    for key in ("lora_target_modules", "lora_modules_to_save", "lora_target_parameters"):
        config.take(key)


def _lora(config: Configuration, result: Translation) -> None:
    options: dict[str, Any] = {"rank": config.take("lora_r", 8)}
    if (alpha := config.take("lora_alpha")) is not None:
        options["alpha"] = alpha
    if dropout := config.take("lora_dropout"):
        options["dropout"] = dropout
    targets = config.take("lora_target_modules")
    if targets and not config.take("lora_target_linear"):
        options["targets"] = targets if isinstance(targets, str) else names_in(targets)
    if saved := config.take("lora_modules_to_save"):
        options["modules_to_save"] = names_in(saved)
    if config.take("lora_target_parameters"):
        options["experts"] = True
    for key, option in (
        ("peft_use_dora", "dora"),
        ("peft_use_rslora", "rslora"),
        ("loraplus_lr_ratio", "loraplus_ratio"),
    ):
        if value := config.take(key):
            options[option] = value
    result.plugin("adapter", "lora", options)


def _own_weights(config: Configuration, result: Translation) -> None:
    if layers := config.take("lisa_n_layers"):
        interval = config.take("lisa_step_interval", 20)
        options = {"activated_layers": layers, "interval_steps": interval}
        config.take("lisa_layers_attribute")
        result.plugin("adapter", "lisa", options)
    elif patterns := config.take("unfrozen_parameters"):
        result.plugin("adapter", "freeze", {"trainable_layers": 0, "parameters": list(patterns)})
    else:
        result.set("adapter", "full")


def _template(config: Configuration, result: Translation) -> None:
    name = str(config.take("chat_template", "tokenizer_default"))
    if name == "tokenizer_default":  # as without the section
        return
    if ours := template_of(_TEMPLATES.get(name, name)):
        result.set("template", ours)
    else:
        result.note("chat_template", "said", f"{name} is not here: the checkpoint's own is used")


def _stage(config: Configuration, result: Translation) -> None:
    asked = str(config.take("rl", "") or "")
    options: dict[str, Any] = {}
    if asked and asked not in _STAGES:
        raise Refused(f"trains by rl: {asked}, which is not translated: write the stage yourself")
    if config.take("process_reward_model"):
        raise Refused("trains a reward for every step, which is not supported")
    name = _STAGES.get(asked, "reward" if config.take("reward_model") else "sft")
    if "pretraining_dataset" in config:
        name = "pretrain"
    if asked == "ipo":
        options["loss"] = "ipo"
    beta = config.take("orpo_alpha") if name == "orpo" else config.take("rl_beta")
    if beta is not None:
        options["beta"] = beta
    for key, option in (
        ("kto_desirable_weight", "desirable_weight"),
        ("kto_undesirable_weight", "undesirable_weight"),
        ("center_rewards_coefficient", "center_coefficient"),
    ):
        if (value := config.take(key)) is not None:
            options[option] = value
    if config.take("sample_packing") and name == "sft":
        options["packing"] = True
    if config.take("use_eaft"):
        options["loss"] = "eaft"
    config.ignore(("eaft_alpha", "eaft_k"), result, "EAFT has its paper's numbers here")
    result.plugin("stage", name, options)


def _data(config: Configuration, result: Translation, recipe_folder: Path) -> None:
    written = config.take("datasets") or config.take("pretraining_dataset")
    sources = written if isinstance(written, list) else [written] if written else []
    if not sources:
        raise Refused("names no datasets")
    result.set("data", [_entry(config, each, result, recipe_folder) for each in sources])
    if tested := config.take("test_datasets"):
        entries = [_entry(config, each, result, recipe_folder) for each in tested]
        result.set("eval_data", {"test": entries})
    if share := config.take("val_set_size"):
        result.set("dataset", {"name": "chat", "validation": share if share < 1 else int(share)})
    if config.take("streaming"):
        result.recipe.setdefault("dataset", "chat")
        result.set("dataset.streaming", True)
    if "streaming_multipack_buffer_size" in config:
        result.recipe.setdefault("dataset", "chat")


#: fields of a data set → columns of ours
_COLUMNS = {"field_chosen": "chosen", "field_rejected": "rejected", "field": "text"}
_TYPES = ("chat_template", "alpaca", "completion", "pretrain", "sharegpt", "bradley_terry", "None")


def _entry(
    config: Configuration, each: Any, result: Translation, recipe_folder: Path
) -> dict[str, Any]:
    source = dict(each) if isinstance(each, dict) else {"path": each}
    path = str(source.pop("path", ""))
    if config.find(path) or Path(path).suffix or path.startswith((".", "/")):
        entry: dict[str, Any] = {"path": config.relative(path, recipe_folder)}
    elif "://" in path:
        entry = {"path": path}
    else:
        entry = {"path": path, "hub": "hf"}
    if files := source.pop("data_files", None):
        listed = files if isinstance(files, list) else [files]
        entry = {"path": config.relative(str(listed[0]), recipe_folder)}
        if len(listed) > 1:
            result.note("datasets.data_files", "missing", "one source of `data` for each file")
    source.pop("ds_type", None)  # told by the file's name
    for key, field in (("split", "split"), ("name", "subset"), ("revision", "revision")):
        if value := source.pop(key, None):
            entry[field] = value
    columns, tags = _names(source, result)
    kind = str(source.pop("type", None)).partition(".")[0].partition(":")[0]
    if kind == "input_output":
        entry["format"] = "rendered"
    elif kind == "alpaca" and result.recipe["stage"] != "pretrain":
        note = "`template: alpaca` and `format: {name: alpaca, input: section}` write its prompt"
        result.note("datasets.type: alpaca", "said", f"the model's template writes prompts; {note}")
    elif kind not in _TYPES:
        result.note("datasets.type", "missing", f"{kind}: the format is found from the records")
    for key in source:
        result.note(f"datasets.{key}", "missing", "has no counterpart")
    return entry | ({"columns": columns} if columns else {}) | ({"tags": tags} if tags else {})


def _names(source: dict[str, Any], result: Translation) -> tuple[dict[str, str], dict[str, str]]:
    columns: dict[str, str] = {}
    if (field := source.pop("field_messages", "messages")) not in ("messages", "conversations"):
        columns["messages"] = field
    for key, column in _COLUMNS.items():
        if (value := source.pop(key, column)) != column:
            columns[column] = value
    tags: dict[str, str] = {}
    for ours, theirs in dict(source.pop("message_property_mappings", None) or {}).items():
        usual = {"role": ("role", "from"), "content": ("content", "value")}.get(ours, (ours,))
        if theirs not in usual:
            tags[ours] = theirs
    for role, names in dict(source.pop("roles", None) or {}).items():
        found = [name for name in names if name not in ("human", "gpt", role)]
        if found:
            tags[role] = found[0]
    trained = source.pop("roles_to_train", None)
    if trained not in (None, ["assistant"], ["gpt"], ["gpt", "assistant"]):
        result.note("datasets.roles_to_train", "missing", "assistants are trained")
    if source.pop("train_on_eos", "turn") not in ("turn", "all", None):
        result.note("datasets.train_on_eos", "said", "the stop token of every answer is trained")
    for key in ("field_thinking", "template_thinking_key"):
        if source.pop(key, "reasoning_content") not in ("reasoning_content", "thinking"):
            result.note(f"datasets.{key}", "missing", "thinking is read from reasoning_content")
    return columns, tags


def _training(config: Configuration, result: Translation) -> None:
    if "max_steps" not in config or config.take("num_epochs") is not None:
        epochs = config.take("num_epochs", 1)
        if config.take("max_steps") is None:
            result.set("training.epochs", epochs)
        else:
            result.set("training.max_steps", config.take("max_steps"))
    warmup = config.take("warmup_steps") or config.take("warmup_ratio")
    config.take("warmup_ratio")
    if warmup:
        result.set("training.warmup_steps", warmup)
    _schedule(config, result)
    precision = next((key for key in ("bf16", "bfloat16") if config.take(key)), None)
    half = [key for key in ("fp16", "float16") if config.take(key)]
    result.set("training.precision", "bf16" if precision else "fp16" if half else "fp32")
    config.take("bfloat16")
    checkpointing = config.take("gradient_checkpointing")
    if checkpointing:
        result.set("training.activation_checkpointing", True)
    if checkpointing == "offload":
        result.note("gradient_checkpointing", "said", "activations are recomputed, not offloaded")
    if config.take("group_by_length"):
        result.set("training.batching", "length_grouped")
    if config.take("save_strategy", "steps") not in ("steps", "epoch", "no"):
        result.note("save_strategy", "missing", "the best is kept by load_best_model_at_end")
    for key in ("evaluation_strategy", "eval_strategy"):
        config.take(key)


def _schedule(config: Configuration, result: Translation) -> None:
    name = str(config.take("lr_scheduler", "cosine"))
    rate, smallest = config.take("cosine_min_lr_ratio"), config.take("eta_min")
    if name == "cosine" and rate and rate < 1:
        result.set("scheduler", {"name": "cosine_with_min_lr", "min_lr_rate": rate})
    elif name == "cosine" and smallest:
        result.set("scheduler", {"name": "cosine_with_min_lr", "min_lr": smallest})
    elif name in _SAME:
        result.set("training.lr_scheduler_type", name)
    else:
        result.note("lr_scheduler", "missing", f"{name} is not here: cosine is used")
    if config.take("cosine_constant_lr_ratio"):
        result.note("cosine_constant_lr_ratio", "missing", "warmup_stable_decay holds a rate")
