"""Settings that LlamaBoard saves, LLaMA-Factory's web page: as its trainer would get them."""

import re
from collections.abc import Mapping
from typing import Any

from tunewright import registry
from tunewright_hf.models import listed
from tunewright_import.translation import Refused

_STAGES = {
    "Supervised Fine-Tuning": "sft",
    "Reward Modeling": "rm",
    "PPO": "ppo",
    "DPO": "dpo",
    "KTO": "kto",
    "Pre-Training": "pt",
}
_BOOSTERS: dict[str, dict[str, Any]] = {
    "flashattn2": {"flash_attn": "fa2"},
    "unsloth": {"use_unsloth": True},
    "liger_kernel": {"enable_liger_kernel": True},
}
#: settings by other names than the trainer's keys
_NAMES = {
    "train_seed": "seed",
    "batch_size": "per_device_train_batch_size",
    "neftune_alpha": "neftune_noise_alpha",
    "use_pissa": "pissa_init",
}
_OF_THE_PAGE = (
    *("training_stage", "compute_type", "ds_stage", "ds_offload", "extra_args"),
    *("lang", "output_box", "device_count", "current_time"),
)
#: method or switch → beginnings of settings that matter with it alone
_BELONGS = {
    "lora": (
        "lora_",
        "loraplus",
        "use_rslora",
        "use_dora",
        "use_pissa",
        "create_new",
        "additional",
    ),
    "freeze": ("freeze_trainable", "freeze_extra"),
    "use_galore": ("galore_",),
    "use_apollo": ("apollo_",),
    "use_badam": ("badam_",),
    "use_swanlab": ("swanlab_",),
}
_PIXELS = ("image_max_pixels", "image_min_pixels", "video_max_pixels", "video_min_pixels")


def is_saved_page(values: Mapping[str, Any]) -> bool:
    """Whether these are settings of LlamaBoard."""
    return "top.model_name" in values or "train.training_stage" in values


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys and values that LlamaBoard passes to its trainer. Raises Refused."""
    page = {key.partition(".")[2]: value for key, value in values.items() if "." in key}
    method = str(page.get("finetuning_type", "lora"))
    found: dict[str, Any] = {
        "model_name_or_path": page.get("model_path") or _model(str(page.get("model_name"))),
        "finetuning_type": method,
        "template": page.get("template"),
        "stage": _STAGES.get(str(page.get("training_stage")), "sft"),
        "output_dir": f"runs/{page.get('model_name')}-{method}",
    }
    if (rope := page.get("rope_scaling", "none")) != "none":
        found["rope_scaling"] = rope
    found |= _BOOSTERS.get(str(page.get("booster")), {})
    if (bits := str(page.get("quantization_bit", "none"))) != "none":
        found |= {"quantization_bit": int(bits)}
        found |= {"quantization_method": page.get("quantization_method", "bnb")}
    if (precision := str(page.get("compute_type", ""))) in ("bf16", "fp16", "pure_bf16"):
        found[precision] = True
    if (stage := str(page.get("ds_stage", "none"))) != "none":
        offload = "offload_" if page.get("ds_offload") else ""
        found["deepspeed"] = f"ds_z{stage}_{offload}config.json"
    on = {method, *(key for key, value in page.items() if value is True)}
    for key, value in values.items():
        name = key.partition(".")[2]
        if key.startswith("train.") and name not in _OF_THE_PAGE and _matters(name, on):
            found[_NAMES.get(name, name)] = _value(name, value)
    return found


def _matters(name: str, on: set[str]) -> bool:
    owners = [owner for owner, starts in _BELONGS.items() if name.startswith(starts)]
    return not owners or bool(on & set(owners))


def _value(name: str, value: Any) -> Any:
    if name in _PIXELS and isinstance(value, str):
        parts = [int(part) for part in value.split("*")]
        return parts[0] * parts[-1] if len(parts) == 2 else parts[0]
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?\d+)?", value):
        return float(value) if set(value) & set(".e") else int(value)
    return value or None  # an empty field of the page


def _model(name: str) -> str:
    """Hub id of a model that LlamaBoard lists by name: the page saves no path."""
    wanted = _plain(name)
    for entry in registry.entries("family"):
        for each in listed.checkpoints(entry.value.partition(":")[0].partition(".")[0]):
            if _plain(each.id.partition("/")[2]) == wanted:
                return each.id
    raise Refused(
        f"names the model {name!r} and no path, and no listed checkpoint has this name: add "
        "`top.model_path` with its hub id or folder"
    )


def _plain(name: str) -> str:
    """Llama-3-8B-Instruct for meta-llama/Meta-Llama-3-8B-Instruct, in lower case."""
    return name.lower().replace("meta-", "").replace("-chat", "-instruct")
