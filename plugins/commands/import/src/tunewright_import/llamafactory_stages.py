"""LLaMA-Factory's stages with their losses."""

from typing import Any

from tunewright_import.translation import Configuration, Refused, Translation

_STAGES = {"pt": "pretrain", "sft": "sft", "rm": "reward", "dpo": "dpo", "kto": "kto", "ppo": "ppo"}
_WITHOUT_REFERENCE = {"orpo": "orpo", "simpo": "simpo"}

_OF_STAGES = (
    *("packing", "neat_packing", "use_asft_loss", "use_dft_loss", "use_eaft_loss"),
    *("predict_with_generate", "max_new_tokens", "pref_beta", "pref_loss", "pref_ftx"),
    *("pref_bco_weight", "dpo_label_smoothing", "ld_alpha", "simpo_gamma", "kto_chosen_weight"),
    *("kto_rejected_weight", "ref_model", "ref_model_quantization_bit", "reward_model"),
    *("reward_model_type", "ppo_epochs", "ppo_target"),
)


def stage(config: Configuration, result: Translation) -> None:
    """The stage with its loss and its options."""
    asked = str(config.take("stage", "sft"))
    loss = str(config.take("pref_loss", "sigmoid")) if asked == "dpo" else ""
    name = _WITHOUT_REFERENCE.get(loss) or _STAGES.get(asked, asked)
    options: dict[str, Any] = {}
    if name in ("sft", "pretrain"):
        options = _sft(config, result, name)
    elif name in ("dpo", "orpo", "simpo", "kto"):
        options = _preferences(config, name, loss)
    elif name == "ppo":
        options = _ppo(config, result)
    config.ignore(_OF_STAGES, result, f"is no option of {name}")
    result.plugin("stage", name, options)


def _sft(config: Configuration, result: Translation, name: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    packing, neat = config.take("packing"), config.take("neat_packing")
    if name == "pretrain":
        return {} if packing in (None, True) else {"packing": False}
    if packing or neat:
        options["packing"] = True
        if not neat:
            result.note("packing", "said", "packed examples never see each other here")
    if config.take("use_asft_loss"):
        raise Refused("trains the ASFT loss; of its kind there are dft and eaft")
    for key, loss in (("use_dft_loss", "dft"), ("use_eaft_loss", "eaft")):
        if config.take(key):
            options["loss"] = loss
    if config.take("predict_with_generate"):
        options["predict_with_generate"] = True
        if length := config.take("max_new_tokens"):
            options["max_new_tokens"] = length
    return options


def _preferences(config: Configuration, name: str, loss: str) -> dict[str, Any]:
    options: dict[str, Any] = {"beta": config.take("pref_beta", 0.1)}
    if name == "kto":
        for key, option in (
            ("kto_chosen_weight", "desirable_weight"),
            ("kto_rejected_weight", "undesirable_weight"),
        ):
            if (weight := config.take(key, 1.0)) != 1.0:
                options[option] = weight
    if name == "simpo":
        options["gamma"] = config.take("simpo_gamma", 0.5)
    if name in ("dpo", "simpo") and (weight := config.take("pref_ftx", 0.0)):
        options["sft_weight"] = weight
    if name == "dpo":
        if loss == "kto_pair":
            raise Refused("trains the loss kto_pair; of its kind are bco_pair and the stage kto")
        bco = config.take("pref_bco_weight", 0.0)
        if bco:
            options["loss"] = {loss: 1.0, "bco_pair": bco}
        elif loss != "sigmoid":
            options["loss"] = loss
        for key, option in (("dpo_label_smoothing", "label_smoothing"), ("ld_alpha", "ld_alpha")):
            if value := config.take(key):
                options[option] = value
    if name in ("dpo", "kto") and (reference := config.take("ref_model")):
        options["reference"] = reference
        if bits := config.take("ref_model_quantization_bit"):
            options["reference_quantizer"] = {"name": "bitsandbytes", "bits": bits}
    return options


def _ppo(config: Configuration, result: Translation) -> dict[str, Any]:
    model, kind = config.take("reward_model"), config.take("reward_model_type", "lora")
    if kind == "api":
        reward: dict[str, Any] = {"name": "http", "url": model}
    else:
        reward = {"name": "reward_model", "path": model}
        result.note("reward_model", "said", "is the run folder of a recipe with `stage: reward`")
    options = {"rewards": [reward], "ppo_epochs": config.take("ppo_epochs", 4)}
    options["kl_target"] = config.take("ppo_target", 6.0)
    if length := config.take("max_new_tokens"):
        options["max_new_tokens"] = length
    return options
