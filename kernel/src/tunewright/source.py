"""Where the values of a recipe were written: turns paths of fields into places of errors."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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
        """Where a field stands: `recipe.yaml:12: stage.packing`."""
        path = self.written(path)
        shown = ".".join(shortened(str(part)) for part in path)
        lines = (self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines)
        line = next(lines, None)
        is_below = any(path[: len(key)] == key for key in self.overridden)
        is_above = any(path == key[: len(path)] for key in self.overridden)
        if is_below or (is_above and not line):
            return f"command line: {shown}"
        return ": ".join(filter(None, [f"{self.file}:{line}" if line else self.file, shown]))

    def written(self, path: Path_) -> Path_:
        """The path as the user wrote it: `stage` where there is no list of stages."""
        keys = {path[0] for path in (*self.lines, *self.overridden) if path}
        return ("stage", *path[2:]) if path[:2] == ("stages", 0) and "stage" in keys else path


class RecipeProblems(RecipeError):
    """Everything that is wrong with a recipe, a line each."""

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
    """What pydantic found below `at`."""
    found = []
    for error in failure.errors():
        path = at + tuple(part for part in error["loc"] if not _is_branch(part))
        found.append(Problem(path, _message(error), _hint(error, model)))
    return list(dict.fromkeys(found))


def _is_branch(part: int | str) -> bool:
    """Whether it names a member of a union, such as `constrained-int` or `list[str]`, and no
    field."""
    return isinstance(part, str) and not part.replace("_", "").replace("-", "x").isalnum()


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "is missing"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if message.startswith("Input should be"):
        expected = message.removeprefix("Input should be ")
        if error["type"] in ("model_type", "dict_type"):
            is_section = error.get("ctx", {}).get("class_name", "").endswith("Section")
            expected = "the name of a plugin, or a mapping with it" if is_section else "a mapping"
        return f"found {shortened(repr(error['input']), 200)}, expected {expected}"
    return str(message)


def shortened(text: str, most: int = 80) -> str:
    """The text, cut where it is longer than a line of an error may be."""
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
