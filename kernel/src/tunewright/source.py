"""Source positions of a recipe's values: turns field paths into places for errors."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tunewright.errors import Problem, RecipeError, did_you_mean
from tunewright.yamlio import Path_


@dataclass
class Source:
    """File, lines and overrides of a recipe."""

    file: str = "recipe"
    lines: dict[Path_, int] = field(default_factory=dict)
    overridden: set[Path_] = field(default_factory=set)

    def place(self, path: Path_) -> str:
        """Place of a field: `recipe.yaml:12: stage.packing`."""
        path = self.written(path)
        shown = ".".join(shortened(str(part)) for part in path)
        lines = (self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines)
        line = next(lines, None)
        is_below = any(path[: len(key)] == key for key in self.overridden)
        is_above = any(path == key[: len(path)] for key in self.overridden)
        if is_below or (is_above and not line):
            return f"command line: {shown}"
        return ": ".join(filter(None, [f"{self.file}:{line}" if line else self.file, shown]))

    def located(self, place: str, stage: int, sections: Container[str]) -> str:
        """The place of an error with file and line, where it names a field, as
        `training.precision: fp16` does. stage: number of the one in progress, whose own values go
        first. sections: first keys of a recipe."""
        name, colon, rest = place.partition(": ")
        path = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
        if path[0] not in sections or place.startswith((f"{self.file}:", "command line:")):
            return place
        own = ("stages", stage, *(path[1:] if path[0] == "stage" else path))
        known = self.lines.keys() | self.overridden
        is_own = path[0] == "stage" or self.written(own) in known
        return f"{self.place(own if is_own else path)}{colon}{rest}"

    def from_command_line(self, *path: str | int) -> bool:
        """Whether a field was written on the command line, where code may be named."""
        forms = (path, self.written(path))
        return any(form[: len(key)] == key for key in self.overridden for form in forms)

    def written(self, path: Path_) -> Path_:
        """The path as the user wrote it: `stage` if there is no list of stages."""
        keys = {path[0] for path in (*self.lines, *self.overridden) if path}
        return ("stage", *path[2:]) if path[:2] == ("stages", 0) and "stage" in keys else path


class RecipeProblems(RecipeError):
    """All problems of a recipe, one line each."""

    def __init__(self, problems: Iterable[Problem], source: Source) -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__("\n".join(self.lines))

    @property
    def lines(self) -> list[str]:
        return [self.line(problem) for problem in self.problems]

    def line(self, problem: Problem) -> str:
        """The problem as the command line prints it."""
        place = self.source.place(problem.path) if problem.path else self.source.file
        said = str(RecipeError(problem.message, place=place, hint=problem.hint))
        return " ".join(said.splitlines())

    def as_json(self) -> list[dict[str, Any]]:
        """The problems as JSON values: path, place, message, hint."""
        return [
            {
                "path": list(self.source.written(problem.path)),
                "place": self.source.place(problem.path),
                "message": problem.message,
                "hint": problem.hint,
            }
            for problem in self.problems
        ]


def problems_of(failure: ValidationError, at: Path_, model: type[BaseModel]) -> list[Problem]:
    """Problems from pydantic's errors below `at`, one per field."""
    found: dict[Path_, Problem] = {}
    for error in failure.errors():
        path = at + _fields_in(error["loc"], model)
        problem = Problem(path, _message(error), _hint(error, model))
        if path in found:  # pydantic reports one per allowed type of the field
            first = found[path].message
            begin, _, expected = problem.message.partition(", expected ")
            joined = f"{first} or {expected}" if first.startswith(begin) and expected else first
            problem = Problem(path, joined, found[path].hint)
        found[path] = problem
    return list(found.values())


def _fields_in(loc: tuple[int | str, ...], model: Any) -> Path_:
    """Path of an error, without pydantic's labels of union members (`constrained-int`)."""
    path: list[int | str] = []
    here: Any = model
    for part in loc:
        while get_origin(here) is Annotated:
            here = get_args(here)[0]
        members = [each for each in get_args(here) if each is not type(None)]
        if get_origin(here) in (Union, UnionType):
            if len(members) > 1:
                here = None  # which member it is does not matter
                continue
            here, members = members[0], list(get_args(members[0]))
        path.append(part)
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        else:
            here = members[-1] if members else None
    return tuple(path)


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "int_parsing_size":
        return f"found {shortened(repr(error['input']), 200)}, expected a smaller number"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if message.startswith("Input should be"):
        expected = message.removeprefix("Input should be ")
        if error["type"] in ("model_type", "dict_type"):
            is_section = error.get("ctx", {}).get("class_name", "").endswith("Section")
            expected = "the name of a plugin, or a mapping with it" if is_section else "a mapping"
        expected = expected.partition(", unable to parse")[0].partition(", got a ")[0]
        return f"found {shortened(repr(error['input']), 200)}, expected {expected}"
    return str(message)


def shortened(text: str, most: int = 80) -> str:
    """The text, truncated to `most` characters for an error."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _hint(error: Any, model: type[BaseModel]) -> str:
    if error["type"] != "extra_forbidden":
        return ""
    owner: Any = model
    for key in error["loc"][:-1]:
        inner = owner.model_fields.get(key) if isinstance(key, str) else None
        owner = inner.annotation if inner else None
        if not (isinstance(owner, type) and issubclass(owner, BaseModel)):
            return ""
    return did_you_mean(str(error["loc"][-1]), owner.model_fields)
