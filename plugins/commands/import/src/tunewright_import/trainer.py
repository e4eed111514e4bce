"""Rules for keys of the arguments of transformers' trainer, which TRL and ms-swift share."""

from typing import Any

from tunewright_import.llamafactory_parts import deepspeed
from tunewright_import.translation import Configuration, Translation, names_in

_SCHEDULES = (
    *("linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"),
    *("cosine_with_min_lr", "cosine_with_restarts", "warmup_stable_decay"),
)
_BATCHING = {"random": "random", "group_by_length": "length_grouped"}


def training(config: Configuration, result: Translation) -> None:
    """Steps, schedule, precision, batching, saving and evaluation."""
    if (steps := int(config.take("max_steps", -1))) > 0:
        result.set("training.max_steps", steps)
        config.take("num_train_epochs")
    else:
        result.set("training.epochs", float(config.take("num_train_epochs", 3)))
    warmup = config.take("warmup_steps", 0) or config.take("warmup_ratio", 0)
    config.take("warmup_ratio")
    if warmup:
        result.set("training.warmup_steps", warmup)
    _schedule(config, result)
    _precision(config, result)
    if config.take("gradient_checkpointing", True):
        result.set("training.activation_checkpointing", True)
    sampling = str(config.take("train_sampling_strategy", "random"))
    if config.take("group_by_length"):
        sampling = "group_by_length"
    if sampling in _BATCHING:
        result.set("training.batching", _BATCHING[sampling])
    else:
        result.note("train_sampling_strategy", "missing", "examples are shuffled")
    _saving(config, result)


def _schedule(config: Configuration, result: Translation) -> None:
    name = str(config.take("lr_scheduler_type", "linear"))
    options = config.take("lr_scheduler_kwargs")
    if name not in _SCHEDULES:
        result.note("lr_scheduler_type", "missing", f"{name} is not here: cosine is used")
    elif options:
        result.set("scheduler", {"name": name, **options})
    else:
        result.set("training.lr_scheduler_type", name)


def _precision(config: Configuration, result: Translation) -> None:
    half, brain = config.take("fp16"), config.take("bf16")
    if half:
        result.set("training.precision", "fp16")
    elif brain is not None:
        result.set("training.precision", "bf16" if brain else "fp32")


def _saving(config: Configuration, result: Translation) -> None:
    strategy, steps = str(config.take("save_strategy", "steps")), config.take("save_steps", 500)
    if strategy == "steps" and steps:
        by_share = isinstance(steps, float) and steps < 1
        if by_share:
            result.note("save_steps", "missing", "a share of all steps: saves_per_epoch")
        else:
            result.set("training.save_steps", int(steps))
    elif strategy == "epoch":
        result.set("training.saves_per_epoch", 1)
    elif strategy == "best":
        result.set("training.load_best_model_at_end", True)
    strategy, steps = str(config.take("eval_strategy", "no")), config.take("eval_steps")
    if strategy == "epoch":
        result.set("training.evals_per_epoch", 1)
    elif strategy == "steps":
        result.set("training.eval_steps", steps or config.take("logging_steps", 10))
    for key in ("metric_for_best_model", "greater_is_better"):
        if (value := config.take(key)) is not None:
            result.set(f"training.{key}", value)


def accelerators(config: Configuration, result: Translation, attention: str) -> None:
    """Attention, kernels, compilation, noise, DeepSpeed and FSDP. attention: key of its name."""
    asked = str(config.take(attention, "") or "").rpartition("/")[2]
    if asked.startswith(("flash_attention", "flash_attn", "flash-attn")):
        version = 3 if asked.endswith("3") else 2
        result.add("accelerators", "flash_attention", version=version)
    elif asked in ("sdpa", "eager"):
        result.set("family.attention", asked)
    elif asked:
        result.note(attention, "missing", f"{asked} is not here: sdpa is used")
    if config.take("use_liger_kernel"):
        result.add("accelerators", "liger")
    if config.take("torch_compile"):
        result.add("accelerators", "compile")
    if alpha := config.take("neftune_noise_alpha"):
        result.add("accelerators", "neftune", alpha=alpha)
    if config.take("activation_offloading"):
        result.add("accelerators", "activation_offload")
    details = config.take("fsdp_config") or {}
    if words := str(config.take("fsdp") or ""):
        offload = "offload" in words or (
            isinstance(details, dict) and details.get("offload_params")
        )
        result.add("accelerators", "fsdp", **({"cpu_offload": True} if offload else {}))
    written = config.take("deepspeed")
    if isinstance(written, str) and written.startswith("zero"):  # ms-swift's own files
        stage = int(written[4])
        if stage >= 2:
            result.add("accelerators", "deepspeed", stage=stage)
        if "offload" in written:
            result.note("deepspeed", "missing", "`accelerators: [fsdp]` offloads to the CPU")
    elif written:
        deepspeed(config, str(written), result)


def lora(config: Configuration, result: Translation, names: dict[str, str]) -> None:
    """A LoRA adapter. names: our option → the program's key."""
    options: dict[str, Any] = {}
    for option, key in names.items():
        value = config.take(key)
        if value in (None, False, [], "") or (option == "dropout" and not value):
            continue
        if option in ("targets", "modules_to_save"):
            value = value if value == "all-linear" else names_in(value)
        options[option] = value
    if options.get("targets") in (["all-linear"], "all-linear"):
        del options["targets"]
    result.plugin("adapter", "lora", options)


def launch(variables: dict[str, str], result: Translation) -> None:
    """Variables of the environment that a script sets."""
    for name, value in variables.items():
        if name == "NPROC_PER_NODE" and value.isdecimal():
            result.set("launch.processes", int(value))
        elif name == "NNODES" and value.isdecimal():
            result.set("launch.nodes", int(value))
        elif name == "CUDA_VISIBLE_DEVICES":
            result.note(name, "command", "is set in the shell, as before")
        elif name not in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
            result.note(name, "missing", "is a variable of the shell or of the other program")
