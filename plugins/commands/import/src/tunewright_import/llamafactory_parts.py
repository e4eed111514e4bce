"""LLaMA-Factory's optimizers, accelerators and trackers."""

import json
from typing import Any

from tunewright_import.translation import Configuration, Refused, Translation

#: optim → optimizer and its options
OPTIM: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw_torch": ("adamw", {}),
    "adamw_torch_fused": ("adamw", {}),
    "adamw_hf": ("adamw", {}),
    "adamw_8bit": ("adamw", {"bits": 8}),
    "adamw_bnb_8bit": ("adamw", {"bits": 8}),
    "paged_adamw_8bit": ("adamw", {"bits": 8, "paged": True}),
    "paged_adamw_32bit": ("adamw", {"paged": True}),
    "paged_adamw": ("adamw", {"paged": True}),
    "adamw_torch_8bit": ("adamw", {"bits": 8, "library": "torchao"}),
    "adamw_torch_4bit": ("adamw", {"bits": 4, "library": "torchao"}),
    "lion_32bit": ("lion", {}),
    "schedule_free_adamw": ("schedule_free", {}),
    "adafactor": ("adafactor", {}),
    "sgd": ("sgd", {}),
    "lion": ("lion", {}),
    "lomo": ("lomo", {}),
    "adalomo": ("adalomo", {}),
    "stable_adamw": ("stable_adamw", {}),
    "apollo_adamw": ("apollo", {}),
}
_WITH_BETAS = ("adamw", "adam_mini", "apollo", "galore", "badam", "muon", "stable_adamw")
#: switch → optimizer, and its options by LLaMA-Factory's keys with their defaults there
_SWITCHED: dict[str, tuple[str, dict[str, tuple[str, Any]]]] = {
    "use_galore": (
        "galore",
        {
            "galore_rank": ("rank", 16),
            "galore_update_interval": ("update_proj_gap", 200),
            "galore_scale": ("scale", 2.0),
            "galore_layerwise": ("layerwise", False),
        },
    ),
    "use_apollo": (
        "apollo",
        {
            "apollo_rank": ("rank", 16),
            "apollo_update_interval": ("update_proj_gap", 200),
            "apollo_scale": ("scale", 32.0),
            "apollo_scale_type": ("scale_type", "channel"),
        },
    ),
    "use_badam": (
        "badam",
        {
            "badam_mode": ("mode", "layer"),
            "badam_switch_mode": ("switch_mode", "ascending"),
            "badam_switch_interval": ("switch_interval", 50),
            "badam_update_ratio": ("update_ratio", 0.05),
            "badam_mask_mode": ("mask_mode", "adjacent"),
        },
    ),
    "use_adam_mini": ("adam_mini", {}),
    "use_muon": ("muon", {}),
}


def optimizer(config: Configuration, result: Translation) -> None:
    """optim, the switches of other optimizers, and Adam's numbers."""
    asked = str(config.take("optim", "adamw_torch"))
    if asked not in OPTIM:
        raise Refused(f"sets optim to {asked}, which is not supported")
    name, options = OPTIM[asked][0], dict(OPTIM[asked][1])
    for switch, (switched, keys) in _SWITCHED.items():
        on = config.take(switch)
        found = {ours: config.take(key, default) for key, (ours, default) in keys.items()}
        if on:
            name, options = switched, found
    for key, option, default in (
        ("adam_beta1", "beta1", 0.9),
        ("adam_beta2", "beta2", 0.999),
        ("adam_epsilon", "eps", 1e-8),
    ):
        value = config.take(key, default)
        if value != default and name in _WITH_BETAS:
            options[option] = value
    if options.get("layerwise"):
        result.set("training.max_grad_norm", 0)
        config.take("max_grad_norm")
        result.note("galore_layerwise", "said", "no norm of all gradients exists: no clipping")
    if name != "adamw" or options:
        result.plugin("optimizer", name, options)


def accelerators(config: Configuration, result: Translation) -> None:
    """DeepSpeed, FSDP, attention, kernels, compilation, noise and long contexts."""
    _attention(config, result)
    if rope := config.take("rope_scaling"):
        result.add("accelerators", "rope_scaling", rope_type=str(rope))
    if config.take("enable_liger_kernel") or config.take("use_liger_kernel"):
        result.add("accelerators", "liger")
    config.take("use_liger_kernel")
    if config.take("torch_compile"):
        result.add("accelerators", "compile")
    if alpha := config.take("neftune_noise_alpha"):
        result.add("accelerators", "neftune", alpha=alpha)
    if written := config.take("deepspeed"):
        deepspeed(config, str(written), result)
    details = config.take("fsdp_config") or {}
    if words := str(config.take("fsdp") or ""):
        offload = "offload" in words or bool(dict(details).get("offload_params"))
        result.add("accelerators", "fsdp", **({"cpu_offload": True} if offload else {}))


def _attention(config: Configuration, result: Translation) -> None:
    asked = str(config.take("flash_attn", "auto"))
    if asked in ("fa2", "fa3", "flash_attention_2"):
        result.add("accelerators", "flash_attention", version=3 if asked == "fa3" else 2)
    elif asked in ("sdpa", "disabled"):
        result.set("family.attention", "sdpa" if asked == "sdpa" else "eager")


#: key of a DeepSpeed configuration → our `offload`
_OFFLOADED = {"offload_optimizer": "optimizer", "offload_param": "all"}


def deepspeed(config: Configuration, written: str, result: Translation) -> None:
    file = config.find(written)
    if file is None:
        result.note("deepspeed", "missing", f"{written} is not there: add the accelerator yourself")
        return
    found = json.loads(file.read_text("utf-8"))
    zero = found.get("zero_optimization", {})
    number = int(zero.get("stage", 0))
    if "tensor_parallel" in found:
        raise Refused("uses DeepSpeed's tensor parallelism, which is not supported")
    if number < 2:
        result.note("deepspeed", "said", f"ZeRO stage {number}: plain data parallelism")
        return
    devices = {key: dict(zero.get(key) or {}).get("device", "none") for key in _OFFLOADED}
    kept = [how for key, how in _OFFLOADED.items() if devices[key] == "cpu"]
    result.add("accelerators", "deepspeed", stage=number, **({"offload": kept[-1]} if kept else {}))
    for key, device in devices.items():
        if device not in ("cpu", "none"):
            result.note(f"deepspeed: {key}", "missing", f"offloads to CPU memory, not to {device}")


def loggers(config: Configuration, result: Translation) -> None:
    """report_to and SwanLab's switch."""
    asked = config.take("report_to", "none")
    names = [asked] if isinstance(asked, str) else list(asked)
    names = [name.strip() for item in names for name in str(item).split(",")]
    if config.take("use_swanlab"):
        names.append("swanlab")
    options = {"run_name": config.take("run_name"), "project": config.take("project")}
    swanlab = {
        "project": config.take("swanlab_project"),
        "workspace": config.take("swanlab_workspace"),
        "run_name": config.take("swanlab_run_name"),
        "mode": config.take("swanlab_mode"),
    }
    trackio = {"space_id": config.take("trackio_space_id")}
    for name in dict.fromkeys(names):
        if name in ("none", "all", ""):
            continue
        own = options | {"swanlab": swanlab, "trackio": trackio}.get(name, {})
        if name == "tensorboard":
            own = {}
        for default in ("console", "jsonl", "plot", "card"):
            if default not in result.recipe.get("loggers", []):
                result.add("loggers", default)
        result.add("loggers", name, **{key: value for key, value in own.items() if value})
