"""Errors of libraries in one line."""

import pytest

from tunewright import RecipeError, RunError
from tunewright_hf.models.errors import first_line, one_line


class PanicException(BaseException):
    """Like pyo3's exception, which cannot be imported or raised from Python."""


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("", "ValueError"),
        (" \n\n  the third\nthe fourth", "the third"),
        ("Validation error for field 'x':\n    TypeError: expected int\n more", None),
        ("a\x1b[31mred\x1b[0m\ttext\x07", "ared text"),
        ("only:", "only:"),
    ],
)
def test_first_line(said: str, line: str | None) -> None:
    expected = line or "Validation error for field 'x': TypeError: expected int"
    assert first_line(ValueError(said)) == expected


def test_first_line_has_an_end() -> None:
    assert len(first_line(ValueError("x" * 10_000))) < 500


def test_panics_are_errors() -> None:
    with pytest.raises(RunError) as caught, one_line("cannot be read", "a.json", "copy it"):
        raise PanicException("index out of bounds")
    assert str(caught.value) == "a.json: cannot be read: index out of bounds (copy it)"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RecipeError("ours"), SystemExit(3)])
def test_others_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, one_line("cannot be read", "a.json"):
        raise error
    assert caught.value is error
