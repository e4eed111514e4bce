"""LLaMA-Factory's methods of fine-tuning, and quantization."""

from typing import Any

from tunewright_import.translation import Configuration, Refused, Translation, names_in


def adapter(config: Configuration, result: Translation) -> None:
    """finetuning_type with the keys of its method."""
    method = str(config.take("finetuning_type", "lora"))
    if config.take("adapter_name_or_path"):
        raise Refused("goes on with a trained adapter: list both trainings as `stages` of a recipe")
    if method == "lora":
        _lora(config, result)
    elif method == "oft":
        if config.take("oft_rank", 0):
            raise Refused("sets oft_rank: OFT is given by block_size here")
        options = {"block_size": config.take("oft_block_size", 32)}
        result.plugin("adapter", "oft", options | _targets(config, "oft_target"))
        if dropout := config.take("module_dropout", 0.0):
            result.set("adapter.dropout", dropout)
    elif config.take("use_llama_pro"):
        layers = config.take("freeze_trainable_layers", 2)
        result.plugin("adapter", "llama_pro", {"new_layers": layers})
        result.note("use_llama_pro", "said", "the adapter expands the model: name it unexpanded")
    elif method == "freeze":
        _freeze(config, result)
    else:
        result.set("adapter", method)
        if config.take("mixture_of_depths"):
            raise Refused("converts to mixture of depths, which is no part of the default install")
    keys = ("add_tokens", "add_special_tokens")
    if tokens := [name for key in keys for name in names_in(config.take(key) or [])]:
        result.set("family.new_tokens", tokens)
    config.ignore(_OF_METHODS, result, f"is no option of {method}")


_LORA = (
    *("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_dora", "use_rslora"),
    *("loraplus_lr_ratio", "pissa_init", "pissa_iter", "additional_target"),
)
_OFT = ("oft_block_size", "oft_target", "oft_rank", "module_dropout", "additional_target")
_FREEZE = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")
_OF_METHODS = tuple(dict.fromkeys((*_LORA, *_OFT, *_FREEZE, "use_llama_pro")))


def _lora(config: Configuration, result: Translation) -> None:
    rank = int(config.take("lora_rank", 8))
    options: dict[str, Any] = {"rank": rank, "alpha": config.take("lora_alpha", 2 * rank)}
    options |= _targets(config, "lora_target")
    for key, option in (
        ("lora_dropout", "dropout"),
        ("use_dora", "dora"),
        ("use_rslora", "rslora"),
        ("loraplus_lr_ratio", "loraplus_ratio"),
    ):
        if value := config.take(key):
            options[option] = value
    if config.take("pissa_init"):
        iterations = int(config.take("pissa_iter", 16))
        options["init"] = "pissa" if iterations < 1 else f"pissa_niter_{iterations}"
    if config.take("shift_attn"):
        result.add("accelerators", "longlora")
    result.plugin("adapter", "lora", options)


def _targets(config: Configuration, key: str) -> dict[str, Any]:
    found = config.take(key, "all")
    targets = {} if found == "all" else {"targets": names_in(found)}
    saved = config.take("additional_target")
    return targets | ({"modules_to_save": names_in(saved)} if saved else {})


def _freeze(config: Configuration, result: Translation) -> None:
    options = {"trainable_layers": config.take("freeze_trainable_layers", 2)}
    if (modules := config.take("freeze_trainable_modules", "all")) != "all":
        options["modules"] = names_in(modules)
    if extra := config.take("freeze_extra_modules"):
        options["extra_modules"] = names_in(extra)
    result.plugin("adapter", "freeze", options)


def quantizer(config: Configuration, result: Translation) -> None:
    """quantization_bit. A checkpoint that is quantized already needs no quantizer."""
    bits, method = config.take("quantization_bit"), str(config.take("quantization_method", "bnb"))
    kind, double = config.take("quantization_type"), config.take("double_quantization")
    if bits is None:
        return
    if method in ("bnb", "bitsandbytes"):
        result.plugin("quantizer", "bitsandbytes", {"bits": bits})
        if kind is not None and bits == 4:
            result.set("quantizer.type", kind)
        if double is not None and bits == 4:
            result.set("quantizer.double_quantization", double)
    elif method == "hqq":
        result.plugin("quantizer", "hqq", {"bits": bits})
    else:
        result.set("quantizer", method)
