"""ms-swift's configurations: scripts with `swift sft --flags`, and YAML files of the flags."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright_import import trainer
from tunewright_import.llamafactory_parts import loggers, optimizer
from tunewright_import.models import family_of, listed_template, template_of
from tunewright_import.translation import Configuration, Refused, Translation

#: verb → stage; rlhf_type names that of rlhf
VERBS = {"sft": "sft", "pt": "pretrain", "rlhf": ""}
_RLHF = {"dpo": "dpo", "orpo": "orpo", "simpo": "simpo", "kto": "kto", "rm": "reward", "ppo": "ppo"}
#: ms-swift's own, where they differ from ours
_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "lr_scheduler_type": "cosine",
    "logging_steps": 5,
    "weight_decay": 0.1,
    "adam_beta2": 0.95,
    "output_dir": "output",
}
#: keys of files for other commands
_FOREIGN = {
    "micro_batch_size": "is for Megatron, which is not supported: `accelerators: [fsdp]` shards "
    "weights",
    "sampler_type": "draws samples, and trains nothing",
    "sampler_engine": "draws samples, and trains nothing",
    "use_ray": "trains on Ray, which starts no runs here: `launch: {processes: N}`",
}
_LORA_DEFAULTS = {"lora_rank": 8, "lora_alpha": 32, "lora_dropout": 0.05, "learning_rate": 1e-4}
_LORA = {
    "rank": "lora_rank",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "targets": "target_modules",
    "modules_to_save": "modules_to_save",
    "rslora": "use_rslora",
    "dora": "use_dora",
    "bias": "lora_bias",
    "loraplus_ratio": "lorap_lr_ratio",
}
_BATCH = 16  # examples of a step, which ms-swift makes up where accumulation is not given
_TRUNCATE = {"left": "start", "right": "end", "delete": None}
_OF_STAGES = (
    *("packing", "beta", "rpo_alpha", "label_smoothing", "ld_alpha", "simpo_gamma", "loss_type"),
    *("desirable_weight", "undesirable_weight", "center_rewards_coefficient", "ref_model"),
    *("reward_model", "num_ppo_epochs", "response_length", "enable_dft_loss", "max_new_tokens"),
    *("predict_with_generate", "loss_weights"),
)


def translate(values: Mapping[str, Any], file: Path, recipe_folder: Path) -> Translation:
    """The recipe of a configuration. Its key `_verb`, of scripts, names the command. Raises
    Refused."""
    for key, reason in _FOREIGN.items():
        if values.get(key):
            raise Refused(reason)
    if "model" not in values:
        raise Refused("names no model: it is no configuration of ms-swift")
    verb = str(values.get("_verb", "rlhf" if "rlhf_type" in values else "sft"))
    tuner = str(values.get("tuner_type", values.get("train_type", "lora")))
    own = _LORA_DEFAULTS if tuner in ("lora", "longlora") else {"learning_rate": 1e-5}
    values = {**_DEFAULTS, **own, **values}
    result = Translation()
    config = Configuration(values, ("trainer.toml", "swift.toml"), file)
    config.take("_verb")
    trainer.launch(dict(config.take("_variables") or {}), result)
    if (task := config.take("task_type", "causal_lm")) != "causal_lm":
        raise Refused(f"trains the task {task}; there are models of text, and reward models")
    _model(config, result)
    _adapter(config, result, tuner)
    _data(config, result, recipe_folder)
    _stage(config, result, verb)
    if (asked := config.take("optimizer")) == "muon":
        result.set("optimizer", "muon")
        config.ignore(("adam_beta1", "adam_beta2", "adam_epsilon"), result, "is Adam's")
    elif asked:
        raise Refused(f"trains with the optimizer {asked}, which is not translated")
    else:
        optimizer(config, result)
    trainer.accelerators(config, result, "attn_impl")
    if (size := int(config.take("sequence_parallel_size", 1))) > 1:
        result.add("accelerators", "sequence_parallel", size=size)
    loggers(config, result)
    if int(config.take("save_total_limit", 0)) > 0:
        result.set("training.save_total_limit", int(config.take("save_total_limit")))
    _accumulation(config, result)
    trainer.training(config, result)
    config.translate_rest(result)
    result.finish()
    return result


def _model(config: Configuration, result: Translation) -> None:
    model = str(config.take("model"))
    result.set("model", model)
    if family := family_of(model):
        result.set("family", family)
    else:
        result.note("model", "said", "the family is found from its config.json")
    if not config.take("use_hf"):
        result.note("model", "said", "is read from Hugging Face, in ms-swift from ModelScope")
    for key, option in (("model_revision", "revision"), ("torch_dtype", "dtype")):
        if value := config.take(key):
            result.set(f"family.{option}", value)
    for key, option in (("freeze_vit", "train_tower"), ("freeze_aligner", "train_projector")):
        if config.take(key, True) is False:
            result.set(f"family.{option}", True)
    if tokens := config.take("new_special_tokens"):
        result.set("family.new_tokens", tokens if isinstance(tokens, list) else [tokens])
    if template := config.take("template"):
        if ours := template_of(str(template)):
            result.set("template", ours)
        else:
            text = f"{template} is not here: the checkpoint's own is used"
            result.note("template", "said", text)
    if system := config.take("system"):
        if name := result.recipe.get("template") or listed_template(model):
            result.plugin("template", name, {"system": str(system)})
        else:
            text = "`template: {name: NAME, system: …}`, once the template's name is known"
            result.note("system", "missing", text)
    if (thinking := config.take("enable_thinking")) is not None:
        result.recipe.setdefault("template", "auto")
        result.set("template.enable_thinking", thinking)
    if (scale := str(config.take("loss_scale", "default"))) == "last_round":
        result.recipe.setdefault("template", "auto")
        result.set("template.train_on", "last")
    elif scale != "default":
        result.note("loss_scale", "missing", f"{scale}: every answer is trained alike")


def _adapter(config: Configuration, result: Translation, tuner: str) -> None:
    config.take("tuner_type"), config.take("train_type")
    if config.take("adapters"):
        raise Refused("goes on with a trained adapter: list both trainings as `stages` of a recipe")
    layers = int(config.take("lisa_activated_layers", 0))
    if tuner in ("lora", "longlora"):
        trainer.lora(config, result, _LORA)
        if (init := config.take("init_weights", True)) not in (True, "true"):
            result.set("adapter.init", str(init))
        if tuner == "longlora":
            result.add("accelerators", "longlora")
    elif tuner == "full" and layers:
        interval = int(config.take("lisa_step_interval", 20))
        options = {"activated_layers": layers, "interval_steps": interval}
        result.plugin("adapter", "lisa", options)
    elif tuner == "full":
        result.set("adapter", "full")
    else:
        raise Refused(f"trains with the tuner {tuner}, which is not translated")
    config.ignore((*_LORA.values(), "init_weights"), result, f"has no effect with {tuner}")
    bits, method = config.take("quant_bits"), str(config.take("quant_method", "bnb"))
    kind, double = config.take("bnb_4bit_quant_type"), config.take("bnb_4bit_use_double_quant")
    if bits:
        name = "bitsandbytes" if method == "bnb" else method
        given: dict[str, Any] = {"bits": int(bits)} if name in ("bitsandbytes", "hqq") else {}
        if name == "bitsandbytes" and int(bits) == 4:
            given |= {
                key: value
                for key, value in (("type", kind), ("double_quantization", double))
                if value is not None
            }
        result.plugin("quantizer", name, given)


def _data(config: Configuration, result: Translation, recipe_folder: Path) -> None:
    written = config.take("dataset")
    if not written:
        raise Refused("names no dataset")
    hub = "hf" if config.take("use_hf") else "modelscope"
    sources = written if isinstance(written, list) else [written]
    columns = config.take("columns")
    entries = [_entry(str(each), config, recipe_folder, hub) for each in sources]
    if isinstance(columns, dict):
        entries = [{**each, "columns": {v: k for k, v in columns.items()}} for each in entries]
    result.set("data", entries)
    if tested := config.take("val_dataset"):
        listed = tested if isinstance(tested, list) else [tested]
        found = [_entry(str(each), config, recipe_folder, hub) for each in listed]
        result.set("eval_data", {"validation": found})
    options: dict[str, Any] = {}
    if share := config.take("split_dataset_ratio"):
        options["validation"] = share
    asked = str(config.take("truncation_strategy", "delete"))
    if cut := _TRUNCATE.get(asked):
        options["truncate"] = cut
    elif asked not in _TRUNCATE:
        result.note("truncation_strategy", "missing", f"{asked}: such examples are dropped")
    if config.take("streaming"):
        options["streaming"] = True
    if buffer := config.take("shuffle_buffer_size"):
        options["shuffle_buffer"] = int(buffer)
    if (workers := int(config.take("dataset_num_proc", 1))) > 1:
        options["workers"] = workers
    if options:
        result.plugin("dataset", "chat", options)


def _entry(written: str, config: Configuration, recipe_folder: Path, hub: str) -> dict[str, Any]:
    """A source: HUB::ID:SUBSET#COUNT, or FILE#COUNT."""
    name, _, count = written.partition("#")
    prefix, colons, rest = name.partition("::")
    if colons and prefix in ("HF", "MS"):
        hub, name = {"HF": "hf", "MS": "modelscope"}[prefix], rest
    if config.find(name) or re.search(r"\.(jsonl?|csv|txt|parquet)$", name):
        entry: dict[str, Any] = {"path": config.relative(name, recipe_folder)}
    else:
        path, _, subset = name.partition(":")
        entry = {"path": path, "hub": hub} | ({"subset": subset} if subset else {})
    return entry | ({"limit": int(count)} if count.isdecimal() else {})


def _stage(config: Configuration, result: Translation, verb: str) -> None:
    kind = str(config.take("rlhf_type", "dpo")) if verb == "rlhf" else ""
    if verb == "rlhf" and kind not in _RLHF:
        raise Refused(
            f"trains by {kind}: write the stage yourself"
            if kind == "grpo"
            else f"trains by {kind}, which is not supported"
        )
    name = _RLHF[kind] if kind else VERBS[verb]
    options: dict[str, Any] = {}
    if name == "sft" and config.take("packing"):
        options["packing"] = True
    if name == "pretrain" and not config.take("packing"):
        options["packing"] = False
    if name == "sft" and config.take("enable_dft_loss"):
        options["loss"] = "dft"
    keys: dict[str, str] = {}
    if name in ("dpo", "orpo", "simpo", "kto"):
        keys["beta"] = "beta"
    if name == "dpo":
        keys |= {"rpo_alpha": "sft_weight", "label_smoothing": "label_smoothing"}
        keys |= {"ld_alpha": "ld_alpha", "loss_type": "loss", "ref_model": "reference"}
    elif name == "kto":
        keys |= {"desirable_weight": "desirable_weight", "ref_model": "reference"}
        keys |= {"undesirable_weight": "undesirable_weight"}
    elif name == "simpo":
        keys["simpo_gamma"] = "gamma"
    elif name == "reward":
        keys["center_rewards_coefficient"] = "center_coefficient"
    elif name == "ppo":
        options["rewards"] = [{"name": "reward_model", "path": config.take("reward_model")}]
        result.note("reward_model", "said", "is the run folder of a recipe with `stage: reward`")
        keys |= {"num_ppo_epochs": "ppo_epochs", "response_length": "max_new_tokens"}
    options |= {ours: value for key, ours in keys.items() if (value := config.take(key))}
    config.ignore(_OF_STAGES, result, f"is no option of {name}")
    result.plugin("stage", name, options)


def _accumulation(config: Configuration, result: Translation) -> None:
    if config.take("gradient_accumulation_steps") is None:
        batch = int(config.take("per_device_train_batch_size"))
        result.set("training.gradient_accumulation_steps", max(1, _BATCH // batch))
        text = f"makes up {_BATCH} examples a step, which ms-swift spreads over all processes"
        result.note("gradient_accumulation_steps", "said", text)
    for key in ("gradient_accumulation_steps", "per_device_train_batch_size"):
        if (value := config.take(key)) is not None:
            result.set(f"training.{key}", int(value))
