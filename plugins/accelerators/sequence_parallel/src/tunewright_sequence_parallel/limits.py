"""Models whose sequences cannot be split."""

from typing import TYPE_CHECKING, Any

from tunewright import RecipeError

if TYPE_CHECKING:
    from tunewright_sequence_parallel import SequenceParallel

#: transformers' layer types in which tokens meet in attention alone
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def check_config(config: Any, options: "SequenceParallel.Options", size: int) -> None:
    """Raise RecipeError for layers with a recurrent state or convolutions, for numbers of heads
    that Ulysses cannot split, and for losses over all tokens. size: ranks of a group."""
    text = config.get_text_config()
    # only configs of models with several layer types have layer_types
    if mixing := sorted(set(getattr(text, "layer_types", None) or ()) - _ATTENTION):
        raise _refusal(f"{text.model_type} has layers ({', '.join(mixing)}) of whole sequences")
    if getattr(text, "output_router_logits", False):
        raise _refusal(f"{text.model_type} has a loss of its router over all tokens of a batch")
    heads = text.num_attention_heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    if options.method == "ulysses" and (heads % size or shared % size):
        raise RecipeError(
            f"{size} ranks cannot share {heads} query heads and {shared} key heads",
            place="accelerators",
            hint="set method: allgather, or a size that divides both",
        )


def _refusal(problem: str) -> RecipeError:
    hint = "take sequence_parallel out of the recipe; fsdp and activation_checkpointing save memory"
    return RecipeError(f"{problem}, which cannot be split", place="accelerators", hint=hint)
