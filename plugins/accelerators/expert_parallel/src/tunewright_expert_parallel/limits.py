"""Models whose experts can be spread."""

from typing import Any

from tunewright import RecipeError

#: name of the number of experts in the configs of transformers
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


def check_config(config: Any, size: int) -> None:
    """Raise RecipeError for a model that transformers cannot spread over `size` ranks."""
    text = config.get_text_config()
    if not text.base_model_ep_plan:
        raise RecipeError(
            f"transformers has no plan of experts for {text.model_type}",
            place="accelerators",
            hint="take fsdp in place of expert_parallel",
        )
    experts = next((getattr(text, name) for name in _COUNTS if hasattr(text, name)), size)
    if experts % size:
        raise RecipeError(
            f"{experts} experts cannot be spread over {size} ranks",
            place="accelerators",
            hint="set a size that divides them",
        )
