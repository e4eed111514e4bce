"""Errors for users: one line with the place, what was found, what is expected, and a remedy."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


class TunewrightError(Exception):
    """An error that ends a command with one clear line.

    place: the file and field, such as `recipe.yaml: stage.packing` or `data/a.jsonl:17`; may be
    empty. problem: what was found and what is expected. hint: the remedy; may be empty.
    """

    exit_code = 1

    def __init__(self, problem: str, *, place: str = "", hint: str = "") -> None:
        self.problem, self.place, self.hint = problem, place, hint
        super().__init__(problem)

    def __str__(self) -> str:
        line = f"{self.place}: {self.problem}" if self.place else self.problem
        return f"{line} ({self.hint})" if self.hint else line

    @property
    def lines(self) -> list[str]:
        """One line per problem, as the command line prints them."""
        return [" ".join(str(self).splitlines())]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a recipe, as data."""

    path: tuple[str | int, ...]  # of the field, such as ("training", "learning_rate")
    message: str  # what was found and what is expected
    hint: str = ""  # remedy


class RecipeError(TunewrightError):
    """The recipe, its plugins or the command line are wrong: nothing was started. Exit code 2."""

    exit_code = 2


class RunError(TunewrightError):
    """The run could not continue. Exit code 1."""


class LostRank(RunError):
    """Another rank of the run has ended, or does not answer: with those that are there, a launcher
    may start this one again."""


class RowError(TunewrightError):
    """A row of data cannot be used; `place` names file and line. Exit code 1."""


class Stopped(TunewrightError):
    """The run was asked to stop, has saved what it could, and can be resumed. Exit code 130."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'lora'?`, or the sorted list of known names, or '' if there are none."""
    names = sorted(known)
    if close := get_close_matches(name, names, n=1):
        return f"did you mean {close[0]!r}?"
    return f"there is: {', '.join(names)}" if names else ""
