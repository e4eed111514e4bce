"""Models whose layers can be split."""

from typing import Any

from torch.distributed.tensor import DTensor

from tunewright import RecipeError

_PARTIAL = "replicated_with_grad_allreduce"  # whose gradients transformers sums after each pass


def check_config(config: Any, size: int) -> None:
    """Raise RecipeError for a model that transformers cannot split over `size` ranks."""
    text = config.get_text_config()
    plan = text.base_model_tp_plan
    if not plan:
        raise _refusal(f"transformers has no plan of tensor parallelism for {text.model_type}")
    heads = text.num_attention_heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    if heads % size or shared % size:
        raise RecipeError(
            f"{size} ranks cannot share {heads} query heads and {shared} key heads",
            place="accelerators",
            hint="set a size that divides both",
        )


def share_embeddings(config: Any) -> None:
    """Have transformers split the embeddings as it splits the head, where both are one matrix."""
    text = config.get_text_config()
    if text.tie_word_embeddings:
        text.base_model_tp_plan = {**text.base_model_tp_plan, "embed_tokens": "embedding_rowwise"}


def check_embeddings(model: Any) -> None:
    """Forget what `share_embeddings` has set. Raises RecipeError where it had no effect."""
    text = model.config.get_text_config()
    vars(text).pop("base_model_tp_plan", None)  # of the class, and not for files
    weight = model.get_input_embeddings().weight
    if text.tie_word_embeddings and not isinstance(weight, DTensor):
        raise _refusal(f"{text.model_type} has one matrix for embeddings and head")


def check_accumulation(config: Any, passes: int) -> None:
    """Raise RecipeError for a model that cannot be trained with several forward passes in a
    step."""
    text = config.get_text_config()
    if passes > 1 and _PARTIAL in (text.base_model_tp_plan or {}).values():
        raise RecipeError(
            f"transformers sums some gradients of {text.model_type} after each forward pass, and "
            f"a step has {passes}",
            place="training.gradient_accumulation_steps",
            hint="set 1, or take accelerator fsdp",
        )


def _refusal(problem: str) -> RecipeError:
    hint = "take fsdp in place of tensor_parallel"
    return RecipeError(problem, place="accelerators", hint=hint)
