"""TRL's methods that generate completions."""

from typing import Any

from tunewright_import.translation import Configuration, Refused, Translation

#: options of ratios, which are 1 where each rollout is trained on once
_OF_RATIOS = ("epsilon", "epsilon_high", "delta", "sapo_temperature_pos", "sapo_temperature_neg")


def grpo(config: Configuration, result: Translation, options: dict[str, Any]) -> None:
    """Options of stage grpo. Raises Refused."""
    functions = config.take("reward_funcs") or []
    functions = functions if isinstance(functions, list) else [functions]
    if model := config.take("reward_model_name_or_path"):
        options["rewards"] = [{"name": "reward_model", "path": str(model)}]
    else:
        named = ", ".join(map(str, functions)) or "none"
        raise Refused(
            f"rewards by Python functions ({named}): write them as plugins of kind reward, and "
            "`stage: {name: grpo, rewards: […]}`"
        )
    for key, option in (
        ("num_generations", "num_generations"),
        ("max_completion_length", "max_new_tokens"),
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("top_k", "top_k"),
        ("beta", "beta"),
        ("mask_truncated_completions", "mask_truncated"),
        ("entropy_coef", "entropy_weight"),
    ):
        if (value := config.take(key)) is not None:
            options[option] = value
    if config.take("use_bias_correction_kl", True) and options.get("beta"):
        options["unbiased_kl"] = True
    _policy_loss(config, result, options)
    scale = str(config.take("scale_rewards", "group")).lower()
    if scale in ("none", "false", "batch"):
        options["scale_rewards"] = "batch" if scale == "batch" else "none"


def online_dpo(config: Configuration, options: dict[str, Any]) -> None:
    """Options of stage online_dpo. Raises Refused."""
    if (model := config.take("reward_model_path")) is None:
        raise Refused(
            "names no reward_model_path: write its Python functions as plugins of kind reward, and "
            "`stage: {name: online_dpo, rewards: […]}`"
        )
    options["rewards"] = [{"name": "reward_model", "path": str(model)}]
    for key, option in (
        ("loss_type", "loss"),
        ("beta", "beta"),
        ("missing_eos_penalty", "missing_eos_penalty"),
        ("max_new_tokens", "max_new_tokens"),
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("top_k", "top_k"),
    ):
        if (value := config.take(key)) is not None:
            options[option] = value


def _policy_loss(config: Configuration, result: Translation, options: dict[str, Any]) -> None:
    loss = str(config.take("loss_type", "dapo"))
    iterations = int(config.take("num_iterations", 1))
    if loss == "bnpo":
        loss = "dapo"
        result.note("loss_type", "said", "bnpo is dapo, whose mean is over all tokens of a step")
    if loss not in ("dapo", "grpo", "dr_grpo", "cispo", "sapo"):
        raise Refused(
            f"trains GRPO with the loss {loss}; there are dapo, grpo, dr_grpo, cispo and sapo"
        )
    if iterations == 1:
        once = "has no effect with num_iterations: 1"
        if averaged := {"cispo": "dapo", "sapo": "grpo"}.get(loss):
            result.note("loss_type", "said", f"{loss} is {averaged} with num_iterations: 1")
            loss = averaged
        config.ignore((*_OF_RATIOS, "importance_sampling_level"), result, once)
    else:
        options["num_iterations"] = iterations
        for name in (*_OF_RATIOS, "importance_sampling_level"):
            if (value := config.take(name)) is not None:
                options[name] = value
    if loss != "dapo":
        options["loss"] = loss
