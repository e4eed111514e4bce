"""Axolotl's optimizers, accelerators and trackers."""

from typing import Any

from tunewright_import.llamafactory_parts import OPTIM, deepspeed
from tunewright_import.translation import Configuration, Refused, Translation

_OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "muon": ("muon", {}),
    "came_pytorch": ("came", {}),
    "lion_pytorch": ("lion", {}),
    "adamw_torch_fp8": ("adamw", {"fp8": True, "library": "torchao"}),
    "ao_adamw_8bit": ("adamw", {"bits": 8, "library": "torchao"}),
    "ao_adamw_4bit": ("adamw", {"bits": 4, "library": "torchao"}),
    "galore_adamw": ("galore", {}),
    "galore_adamw_layerwise": ("galore", {"layerwise": True}),
}
_KERNELS = {
    "liger_rope": "rope",
    "liger_rms_norm": "rms_norm",
    "liger_glu_activation": "glu",
    "liger_layer_norm": "layer_norm",
}
_QUIET = ("LigerPlugin", "CutCrossEntropyPlugin")  # plugins whose part we have


def optimizer(config: Configuration, result: Translation) -> None:
    """The optimizer with its numbers. Raises Refused."""
    asked = str(config.take("optimizer", "adamw_torch"))
    if asked not in OPTIM | _OWN:
        raise Refused(f"trains with the optimizer {asked}, which is not supported")
    name, options = (OPTIM | _OWN)[asked]
    options = dict(options)
    for key, option in (
        ("adam_beta1", "beta1"),
        ("adam_beta2", "beta2"),
        ("adam_epsilon", "eps"),
        ("adam_eps", "eps"),
    ):
        if (value := config.take(key)) is not None and name in ("adamw", "muon", "galore"):
            options[option] = value
    if name != "adamw" or options:
        result.plugin("optimizer", name, options)


def accelerators(config: Configuration, result: Translation) -> None:
    """Attention, kernels, compilation, offloading, DeepSpeed and FSDP."""
    attention = str(config.take("attn_implementation", "") or "")
    flash = config.take("flash_attention") or attention.startswith("flash_attention")
    if flash:
        version = 3 if attention.endswith("3") else 2
        result.add("accelerators", "flash_attention", version=version)
    elif attention in ("sdpa", "eager"):
        result.set("family.attention", attention)
    elif attention:
        result.note("attn_implementation", "missing", f"{attention} is not here: sdpa is used")
    for key in ("sdp_attention", "xformers_attention", "flex_attention", "eager_attention"):
        config.take(key)
    chosen = {ours: bool(config.take(key, False)) for key, ours in _KERNELS.items()}
    if any(chosen.values()):
        result.add("accelerators", "liger", **chosen)
    if config.take("torch_compile"):
        result.add("accelerators", "compile")
    if alpha := config.take("neftune_noise_alpha"):
        result.add("accelerators", "neftune", alpha=alpha)
    if config.take("activation_offloading"):
        result.add("accelerators", "activation_offload")
    if written := config.take("deepspeed"):
        deepspeed(config, str(written), result)
    _fsdp(config, result)
    for plugin in config.take("plugins") or []:
        if not str(plugin).endswith(_QUIET):
            result.note(f"plugins: {plugin}", "missing", "is Python code of Axolotl's")


def _fsdp(config: Configuration, result: Translation) -> None:
    details = dict(config.take("fsdp_config") or {})
    words, version = config.take("fsdp"), config.take("fsdp_version")
    if not (words or details or version):
        return
    offload = details.get("offload_params") or details.get("fsdp_offload_params")
    result.add("accelerators", "fsdp", **({"cpu_offload": True} if offload else {}))


def loggers(config: Configuration, result: Translation) -> None:
    """Weights & Biases, SwanLab, Trackio, MLflow, Comet and TensorBoard."""
    found: dict[str, dict[str, Any]] = {}
    if project := config.take("wandb_project"):
        found["wandb"] = {"project": project, "entity": config.take("wandb_entity")}
    if name := config.take("wandb_name"):
        found.setdefault("wandb", {})["run_name"] = name
    config.ignore(("wandb_entity", "use_wandb"), result, "a project or a name turns wandb on")
    if config.take("use_swanlab"):
        found["swanlab"] = {
            "project": config.take("swanlab_project"),
            "run_name": config.take("swanlab_experiment_name"),
            "notes": config.take("swanlab_description"),
            "mode": config.take("swanlab_mode"),
            "workspace": config.take("swanlab_workspace"),
        }
    if project := config.take("trackio_project_name"):
        found["trackio"] = {"project": project, "run_name": config.take("trackio_run_name")}
    if config.take("mlflow_tracking_uri") or config.take("use_mlflow"):
        found["mlflow"] = {"tracking_uri": config.take("mlflow_tracking_uri")}
    if config.take("use_comet"):
        found["comet"] = {"project": config.take("comet_project_name")}
    if config.take("use_tensorboard"):
        found["tensorboard"] = {}
    if found:
        for default in ("console", "jsonl", "plot", "card"):
            result.add("loggers", default)
    for name, options in found.items():
        given = {key: value for key, value in options.items() if value}
        result.add("loggers", name, **given)
