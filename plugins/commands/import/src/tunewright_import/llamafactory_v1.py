"""Configurations of LLaMA-Factory's second engine (USE_V1=1)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tunewright_import.models import family_of
from tunewright_import.translation import Configuration, Refused, Translation

_METHODS = {
    "lora": {
        "r": "rank",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "target_modules": "targets",
    },
    "freeze": {
        "freeze_trainable_layers": "trainable_layers",
        "freeze_trainable_modules": "modules",
        "freeze_extra_modules": "extra_modules",
    },
}
_MUON = {"momentum": "momentum", "nesterov": "nesterov", "ns_steps": "ns_steps", "adamw_eps": "eps"}
#: batching_strategy → fields of the recipe
_BATCHING: dict[str, dict[str, Any]] = {
    "normal": {"training.batching": "random"},
    "dynamic_batching": {"training.batching": "token_budget"},
    "padding_free": {"stage.packing": True},
    "dynamic_padding_free": {"stage.packing": True},
}


def translate(values: Mapping[str, Any], file: Path, recipe_folder: Path) -> Translation:
    """The recipe of a configuration. Raises Refused."""
    config, result = Configuration(values, ("llamafactory_v1.toml",), file), Translation()
    model, method = str(config.take("model")), dict(config.take("peft_config", {}))
    if "export_dir" in method:
        result.command = (
            f"tunewright export {method.get('adapter_name_or_path')} --to safetensors --output "
            f"{method['export_dir']}"
        )
        return result
    result.set("model", model)
    if family := family_of(model):
        result.set("family", family)
    _method(method, result)
    _quantizer(dict(config.take("quant_config", {})), result)
    stage = "dpo" if _data(config, result, recipe_folder) else "sft"
    result.plugin("stage", stage, {})
    _optimizer(dict(config.take("optim_config", {})), result)
    _accelerators(config, result)
    for place, value in _BATCHING.get(str(config.take("batching_strategy", "normal")), {}).items():
        result.set(place, value)
    if (steps := config.take("max_steps")) is not None:
        result.set("training.max_steps", steps)
    else:
        result.set("training.epochs", config.take("num_train_epochs", 3.0))
    if config.take("bf16"):
        result.set("training.precision", "bf16")
    config.translate_rest(result)
    return result


def _method(asked: dict[str, Any], result: Translation) -> None:
    name = str(asked.pop("name", "full"))
    names = _METHODS.get(name, {})
    options = {}
    for key, value in asked.items():
        if value is None or (key == "target_modules" and value == "all"):
            continue
        if key in names:
            options[names[key]] = value
        else:
            result.note(f"peft_config.{key}", "missing", f"is no option of {name} here")
    result.plugin("adapter", name, options)


def _quantizer(asked: dict[str, Any], result: Translation) -> None:
    if asked:
        name = str(asked.get("name", "auto"))
        if name not in ("auto", "bnb"):
            raise Refused(f"quantizes by {name}, which is not supported")
        result.plugin("quantizer", "bitsandbytes", {"bits": asked.get("quantization_bit", 4)})


def _data(config: Configuration, result: Translation, recipe_folder: Path) -> bool:
    """Write the sources of the YAML file of data sets. Returns whether they are pairs."""
    written = str(config.take("train_dataset", ""))
    file = config.find(written)
    if file is None or not file.is_file():
        raise Refused(f"names the data sets of {written!r}, which is not there")
    sets = yaml.safe_load(file.read_text("utf-8"))
    if not isinstance(sets, dict):
        raise Refused(f"names {written!r}, which holds no data sets by name")
    pairs, entries = False, []
    for name, each in sets.items():
        source, converter = str(each.get("source", "hf_hub")), each.get("converter")
        path = str(each.get("path", ""))
        if source == "local":
            entry: dict[str, Any] = {"path": config.relative(path, recipe_folder)}
        else:
            entry = {"path": path, "hub": "modelscope" if source.startswith("ms") else "hf"}
        entry |= {"split": split} if (split := each.get("split")) else {}
        entry |= {"limit": size} if (size := each.get("size")) else {}
        pairs = pairs or converter == "pair"
        if converter not in (None, "alpaca", "sharegpt", "pair"):
            result.note(f"{written}: {name}", "missing", f"the converter {converter} is not here")
        entries.append(entry)
    result.set("data", entries)
    return pairs or "dpo" in Path(written).stem


def _optimizer(asked: dict[str, Any], result: Translation) -> None:
    if not asked:
        return
    name = str(asked.pop("name", "adamw"))
    if name not in ("adamw", "muon"):
        raise Refused(f"trains with the optimizer {name}, which is not supported")
    if (decay := asked.pop("wd", None)) is not None:
        result.set("training.weight_decay", decay)
    options: dict[str, Any] = {}
    if betas := asked.pop("adamw_betas", None):
        options = {"beta1": betas[0], "beta2": betas[1]}
    for key, value in asked.items():
        if key in _MUON:
            options[_MUON[key]] = value
        else:
            result.note(f"optim_config.{key}", "missing", f"is no option of {name} here")
    result.plugin("optimizer", name, options)


def _accelerators(config: Configuration, result: Translation) -> None:
    engine = dict(config.take("dist_config", {}))
    name = str(engine.get("name", "ddp"))
    if name == "deepspeed":
        result.add("accelerators", "deepspeed", stage=3)
        result.note("dist_config.config_file", "said", "the ZeRO stage is 3, as in its example")
    elif name == "fsdp2":
        result.add("accelerators", "fsdp")
    elif name != "ddp":
        raise Refused(f"distributes by {name}, which is not supported")
    if (size := int(config.take("cp_size", 1))) > 1:
        if (mode := config.take("cp_mode", "ulysses")) != "ulysses":
            raise Refused(f"splits sequences ({mode}), which is not supported")
        result.add("accelerators", "sequence_parallel", size=size)
    config.take("cp_mode")
    kernels = str(dict(config.take("kernel_config", {})).get("name", "auto"))
    if kernels == "liger_kernel":
        result.add("accelerators", "liger")
    elif kernels != "auto":
        result.note("kernel_config", "missing", "kernels of LLaMA-Factory's own are not here")
    if config.take("flash_attn") in ("flash_attention_2", "fa2"):
        result.add("accelerators", "flash_attention", version=2)
