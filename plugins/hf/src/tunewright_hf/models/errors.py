"""Library errors in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tunewright import RunError, TunewrightError

__all__ = ["one_line"]

#: the remedy where a library is missing that reads *.model and *.tiktoken
NEEDS_TOKENIZERS = 'pip install "tunewright-hf[slow-tokenizers]"'
#: the remedy for a file of a checkpoint whose content cannot be used
PUBLISHED = "take the file as its publisher, or save_pretrained, wrote it"

_LONGEST = 400  # maximum characters of a line
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def first_line(error: BaseException) -> str:
    """The most informative line of an error: the first non-empty one, with the next if it only
    announces it ("Validation error for field 'x':"). No control characters; never empty."""
    lines = [" ".join(_CONTROL.sub("", line).split()) for line in str(error).splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        return type(error).__name__
    said = lines.pop(0)
    while lines and said.endswith(":"):
        said = f"{said} {lines.pop(0)}"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} …"


@contextmanager
def one_line(problem: str, place: str, hint: str = "") -> Iterator[None]:
    """Convert any library exception inside the context to a RunError "place: problem: type: first
    line".

    Panics of libraries in Rust are BaseExceptions, which `except Exception` misses: they are
    converted too. Tunewright's own errors and KeyboardInterrupt pass.
    """
    try:
        yield
    except TunewrightError:
        raise
    except Exception as error:
        said = f"{problem}: {type(error).__name__}: {first_line(error)}"
        raise RunError(said, place=place, hint=hint) from error
    except BaseException as error:
        # pyo3's exception class, which cannot be imported
        if type(error).__name__ != "PanicException":
            raise
        raise RunError(f"{problem}: {first_line(error)}", place=place, hint=hint) from None
