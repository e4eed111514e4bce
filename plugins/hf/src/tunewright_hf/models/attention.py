"""Errors of attention implementations that a model's class does not support."""

from collections.abc import Iterator
from contextlib import contextmanager

from tunewright import RecipeError, TunewrightError
from tunewright.types import LoadRequest


@contextmanager
def attention_named(request: LoadRequest) -> Iterator[None]:
    """Raise a RecipeError if the model's class does not support the attention named in the
    recipe."""
    try:
        yield
    except TunewrightError as error:
        if isinstance(cause := error.__cause__, ValueError | ImportError) and _refuses(
            cause, request
        ):
            raise _refusal(cause, request) from cause
        raise
    except (ValueError, ImportError) as error:  # raised for a tiny twin
        if _refuses(error, request):
            raise _refusal(error, request) from error
        raise


def _refuses(error: Exception, request: LoadRequest) -> bool:
    """Whether the error is about attention, judged by transformers' messages: it has no class of
    its own. The second is that of a missing package."""
    said = ("attention implementation", "has been toggled on")
    return request.attention is not None and any(part in str(error) for part in said)


def _refusal(error: Exception, request: LoadRequest) -> RecipeError:
    said = str(error).strip().partition(". ")[0].partition("\n")[0]
    hint = (
        "leave out family.attention, or what asks for it: the fastest that the model can "
        "do is taken"
    )
    return RecipeError(
        f"attention {request.attention} cannot be used: {said}", place=request.model, hint=hint
    )
