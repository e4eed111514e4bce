"""Values that a sweep tries: a list of choices, or a range."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tunewright import RecipeError, yamlio

__all__ = ["Range", "Values", "combinations", "read"]

_NUMBER = Annotated[int | float, Field(allow_inf_nan=False)]
_RANGE = "[VALUE, …] or {low: …, high: …, log: true, step: …}"
_MOST = 10_000  # combinations of a grid


class Range(BaseModel):
    """From low to high, both included. log: uniform in the logarithm. step: distance of values,
    from low on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    low: _NUMBER
    high: _NUMBER
    log: bool = False
    step: _NUMBER | None = None

    @property
    def whole(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g}, expected less than high, {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}, expected more than 0 with log")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step is {self.step:g}, expected more than 0")
        if self.step is not None and self.whole and not isinstance(self.step, int):
            raise ValueError(f"step is {self.step:g}, expected an integer as low and high are")
        return self

    def points(self) -> list[Any]:
        """All values. Raises ValueError if there are more than a grid can have."""
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            raise ValueError("has no step, and a grid needs one, or a list of values")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        if count > _MOST:
            raise ValueError(f"has {count} values, expected up to {_MOST}")
        return [self.low + number * step for number in range(count)]


Values = list[Any] | Range


def read(varied: tuple[str, ...], file: Path | None) -> dict[str, Values]:
    """Fields and their values, those of the command line last. Raises RecipeError."""
    found: dict[str, Values] = {}
    if file is not None:
        content = yamlio.parse(_text(file), str(file))[0]
        if not isinstance(content, dict):
            raise RecipeError("holds no mapping of fields to values", place=str(file))
        for field, values in content.items():
            found[str(field)] = _values(values, f"{file}: {field}")
    for text in varied:
        field, equals, written = text.partition("=")
        if not field or not equals:
            raise RecipeError(f"found {text!r}, expected KEY=VALUES", place="--vary")
        found[field] = _values(yamlio.parse(written, f"--vary {field}")[0], f"--vary {field}")
    if "output" in found:
        raise RecipeError("is the sweep's own: each trial has its folder", place="--vary output")
    if not found:
        hint = "--vary 'training.learning_rate={low: 1e-5, high: 1e-3, log: true}'"
        raise RecipeError("no field is varied", place="command line", hint=hint)
    return found


def combinations(space: Mapping[str, Values]) -> dict[str, list[Any]]:
    """All values of each field, for a grid. Raises RecipeError if there are too many."""
    found: dict[str, list[Any]] = {}
    for field, values in space.items():
        try:
            found[field] = values.points() if isinstance(values, Range) else values
        except ValueError as error:
            raise RecipeError(str(error), place=f"--vary {field}") from error
    count = math.prod(map(len, found.values()))
    if count > _MOST:
        raise RecipeError(f"a grid of {count} combinations, expected up to {_MOST}")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", place=str(file)) from error


def _values(written: Any, place: str) -> Values:
    if isinstance(written, list) and written:
        if len({repr(each) for each in written}) < len(written):
            raise RecipeError("holds a value twice", place=place)
        return written
    if not isinstance(written, dict):
        raise RecipeError(f"found {written!r}, expected {_RANGE}", place=place)
    try:
        return Range(**written)
    except (ValidationError, TypeError) as error:
        raise RecipeError(_problem(error, written), place=place) from error


def _problem(error: Exception, written: dict[Any, Any]) -> str:
    if not isinstance(error, ValidationError):
        return f"found {written!r}, expected {_RANGE}"
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"][:1]))
    if first["type"] == "extra_forbidden":
        return f"{name!r} is no part of a range, expected {_RANGE}"
    if first["type"] == "missing":
        return f"{name} is missing, expected {_RANGE}"
    return f"{name} {first['msg']}".strip().removeprefix("Value error, ")
