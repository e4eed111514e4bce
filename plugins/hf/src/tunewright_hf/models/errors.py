"""Errors of libraries in one line of ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tunewright import RunError, TunewrightError

_LONGEST = 400  # characters of a line that is shown
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def first_line(error: BaseException) -> str:
    """The line of an error that says most: the first that is not empty, with the next where it only
    announces it ("Validation error for field 'x':"). Without control characters; never empty."""
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
    """Raise whatever a library raises inside as a RunError "place: problem: type: first line".

    A panic of a library written in Rust is a BaseException, which no `except Exception` sees: it is
    caught too. Our own errors and KeyboardInterrupt pass.
    """
    try:
        yield
    except TunewrightError:
        raise
    except Exception as error:
        said = f"{problem}: {type(error).__name__}: {first_line(error)}"
        raise RunError(said, place=place, hint=hint) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3's, which cannot be imported
            raise
        raise RunError(f"{problem}: {first_line(error)}", place=place, hint=hint) from None
