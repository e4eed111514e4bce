"""Rewards named in a recipe, for the completions of a policy.

A reward is a plugin of the kind `reward`, or a plain function in a Python file named on the command
line (mine.py:brief):

    def brief(completions: list[str], **columns: list) -> list[float | None]

completions: without stop token. columns: the columns of the completions' rows by name, as long as
completions, including `prompts` (rendered). Further keys of the section besides `name`, `weight`,
`time_limit` and `late` are a plugin's options, or keyword arguments of the function. Both return
one number per completion, None if they have no score for it. Either may be asynchronous (`async
def`): such rewards run together. Each rank scores its own completions.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, Literal

from tunewright import RecipeError, registry
from tunewright.recipe import Section
from tunewright.resolved import choose
from tunewright.source import Source
from tunewright.types import LoadedModel, RewardRequest, RunContext
from tunewright_hf.training.reward_calls import score_all

__all__ = ["check", "load"]

_SHOWN = 12  # columns that are written out in an error
_LONGEST = 86_400  # seconds of a time limit
Score = Callable[[RewardRequest], Any]  # one number or None per completion, or an awaitable of it
Late = Literal["error", "none"]


@dataclass
class WeightedReward:
    """A reward of a recipe. score: the hook of its plugin, or a wrapped function."""

    name: str
    weight: float
    score: Score
    policy: LoadedModel | None = None
    plugin: Any = None  # None: a function in a file
    needed: tuple[str, ...] = ()  # columns that rows must have
    is_async: bool = False  # whether `score` gives an awaitable
    time_limit: float | None = None  # seconds per call
    late: Late = "error"  # a call that exceeds its limit
    last_call: Future[Any] | None = None  # in a thread of its own

    def __call__(self, completions: list[str], columns: dict[str, list[Any]]) -> list[float]:
        """One number per completion, NaN for none. Raises RunError if the reward fails."""
        return score_all([self], completions, columns)[0][0]


@dataclass(frozen=True)
class Named:
    """A section of `rewards`. options: of the plugin, or keyword arguments of the function."""

    name: str
    weight: float
    time_limit: float | None
    late: Late
    options: dict[str, Any]


def check(section: str | dict[str, Any]) -> None:
    """Check that the reward exists; nothing is imported, and no file is opened. Raises
    ValueError."""
    name = _parts(section).name
    if not _is_in_a_file(name):
        try:
            registry.find("reward", name)
        except RecipeError as error:
            raise ValueError(str(error)) from error


def columns(section: str | dict[str, Any]) -> tuple[str, ...]:
    """The columns that a reward plugin needs, none of a function in a file, which is not opened.
    Raises RecipeError if its options are wrong."""
    given = _parts(section)
    if _is_in_a_file(given.name):
        return ()
    written = Section(name=given.name, **given.options)
    choice = choose("reward", written, Source(f"reward {given.name}"), ())
    return tuple(choice.make().columns())


def untrusted(section: str | dict[str, Any], from_command_line: bool) -> tuple[str, str]:
    """Problem and hint where a reward is a function in a file that the recipe names; two empty
    texts where it is not. from_command_line: whether its name was given there."""
    name = _parts(section).name
    if from_command_line or not _is_in_a_file(name):
        return "", ""
    hint = (
        f"add it to the command: 'stage.rewards=[{{name: {name}}}]', or stages.1.rewards in a chain"
    )
    return f"the file of {name} is code: only the command line may name it", hint


def missing(name: str, needed: Iterable[str], there: Iterable[str]) -> tuple[str, str]:
    """Problem and hint where rows lack columns that a reward needs; two empty texts where they do
    not."""
    known = sorted(there)
    gone = [column for column in needed if column not in known]
    if not gone:
        return "", ""
    shown = ", ".join([column for column in known if column != "prompts"][:_SHOWN])  # ours
    other = next((column for column in known if not column.startswith("prompt")), "solution")
    return (
        f"reward {name} needs the column {gone[0]!r}, and the rows have {shown}",
        f"rename one in the source, such as `columns: {{{gone[0]}: {other}}}`, or set the reward's "
        "option for it, if it has one",
    )


def load(
    section: str | dict[str, Any],
    place: str,
    run: RunContext,
    policy: LoadedModel | None,
    *,
    from_command_line: bool,
) -> WeightedReward:
    """Load a reward named in a recipe: `exact_match`, or a mapping with name, weight and options.

    place: of the section, for errors. policy: the model, while it is trained. from_command_line:
    whether the name was given there; files are code, and are run only then. Raises RecipeError if
    it cannot be imported, or is not a reward.
    """
    try:
        given = _parts(section)
        common: dict[str, Any] = {
            "weight": given.weight,
            "policy": policy,
            "time_limit": given.time_limit,
            "late": given.late,
        }
        if _is_in_a_file(given.name):
            problem, hint = untrusted(section, from_command_line)
            if problem:
                raise RecipeError(problem, place=place, hint=hint)
            function = _function(given.name)
            return WeightedReward(
                given.name.rpartition(":")[2],
                score=_wrapped(function, given.options),
                needed=_needed(function, given.options),
                is_async=inspect.iscoroutinefunction(function),
                **common,
            )
    except Exception as error:  # whatever the file raises
        raise RecipeError(f"cannot be loaded: {error}", place=place) from error
    try:
        caller = run.named("reward", given.name, **given.options)
    except RecipeError as error:
        raise RecipeError(error.problem, place=place, hint=error.hint) from error

    def score(request: RewardRequest) -> Any:
        return caller.call("score", run=run, request=request)

    return WeightedReward(
        caller.entry.name,
        score=score,
        plugin=caller.plugin,
        needed=tuple(caller.plugin.columns()),
        is_async=inspect.iscoroutinefunction(caller.plugin.score),
        **common,
    )


def _wrapped(function: Callable[..., Any], options: dict[str, Any]) -> Score:
    def score(request: RewardRequest) -> Any:
        return function(request.completions, **request.columns, **options)

    return score


def _needed(function: Any, options: dict[str, Any]) -> tuple[str, ...]:
    """Parameters without a default, besides the completions, that no option gives."""
    try:
        _, *others = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # a function of C, or without a parameter
        return ()
    named = [
        each for each in others if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return tuple(
        each.name for each in named if each.default is each.empty and each.name not in options
    )


def _parts(section: str | dict[str, Any]) -> Named:
    """The section's own keys, and the options. Raises ValueError if one is wrong."""
    written = {"name": section} if isinstance(section, str) else dict(section)
    name, weight = written.pop("name", None), written.pop("weight", 1.0)
    limit: Any = written.pop("time_limit", None)
    late: Any = written.pop("late", "error")
    if not isinstance(weight, (int, float)) or not math.isfinite(weight):
        raise ValueError(f"the weight of reward {name} is {weight!r}, not a number")
    if not isinstance(name, str):
        raise ValueError(f"found {name!r}, expected the name of a reward")
    if limit is not None and not (isinstance(limit, (int, float)) and 0 < limit <= _LONGEST):
        raise ValueError(
            f"the time_limit of reward {name} is {limit!r}: expected seconds, at most {_LONGEST}"
        )
    if late not in ("error", "none"):
        raise ValueError(f"`late` of reward {name} is {late!r}: expected error or none")
    if late == "none" and limit is None:
        raise ValueError(f"`late` of reward {name} does nothing without its time_limit")
    return Named(name, float(weight), limit, late, written)


def _is_in_a_file(name: str) -> bool:
    """Whether the name refers to a file: `mine.py:brief` is the function `brief` in mine.py,
    relative to the current folder."""
    return name.rpartition(":")[0].endswith(".py")


def _function(name: str) -> Any:
    file, _, function = name.rpartition(":")
    spec = util.spec_from_file_location(Path(file).stem, file)
    assert spec and spec.loader  # true because its name ends in .py
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(found := vars(module).get(function)):
        raise ValueError(f"{file} has no function {function!r}")
    return found
