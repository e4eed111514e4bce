"""Rewards that a recipe names: what the completions of a policy are worth.

A reward is a plugin of the kind `reward`, or a plain function in a Python file that the command
line names (mine.py:brief):

    def brief(completions: list[str], **columns: list) -> list[float | None]

completions: without stop token. columns: the columns of the completions' rows by name, as long as
completions, `prompts` (rendered) among them. What a recipe says besides `name` and `weight` is a
plugin's options, or is handed to the function by name. Both give one number for each completion,
None where there is nothing to say of it. Each rank asks for its own completions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError, TunewrightError, registry
from tunewright.types import LoadedModel, RewardRequest

Score = Callable[[RewardRequest], list[float | None]]


@dataclass(frozen=True)
class WeightedReward:
    """One reward of a recipe. score: the hook of its plugin, or a wrapped function."""

    name: str
    weight: float
    score: Score
    policy: LoadedModel | None = None
    plugin: Any = None  # None: a function in a file

    def __call__(self, completions: list[str], columns: dict[str, list[Any]]) -> list[float]:
        """One number for each completion, NaN where there is none. Raises RunError where the reward
        fails."""
        place = f"reward {self.name}"
        try:
            given = list(self.score(RewardRequest(completions, columns, self.policy)))
            found = [math.nan if value is None else float(value) for value in given]
        except TunewrightError:
            raise
        except Exception as error:
            raise RunError(f"fails: {type(error).__name__}: {error}", place=place) from error
        if len(found) != len(completions):
            raise RunError(
                f"gave {len(found)} numbers for {len(completions)} completions", place=place
            )
        for number, value in zip(found, given, strict=True):
            if value is not None and not math.isfinite(number):
                hint = "None is for completions that it says nothing of"
                raise RunError(f"gave {number}", place=place, hint=hint)
        return found


def check(section: str | dict[str, Any]) -> None:
    """Check that there is such a reward; nothing is imported, and no file is opened. Raises
    ValueError."""
    name, _, _ = _parts(section)
    if not _is_in_a_file(name):
        try:
            registry.find("reward", name)
        except RecipeError as error:
            raise ValueError(str(error)) from error


def load(
    section: str | dict[str, Any],
    place: str,
    run: Any,
    policy: LoadedModel,
    *,
    from_command_line: bool,
) -> WeightedReward:
    """The reward that a recipe names: `exact_match`, or a mapping with name, weight and options.

    place: of the section, for errors. policy: the model that is trained. from_command_line: whether
    the name was written there; files are code, and are run only then. Raises RecipeError where it
    cannot be imported, or is none.
    """
    try:
        name, weight, options = _parts(section)
        if _is_in_a_file(name):
            function = _function(name, from_command_line)
            bare = name.rpartition(":")[2]
            return WeightedReward(bare, weight, _wrapped(function, options), policy)
    except Exception as error:  # whatever the file raises
        raise RecipeError(f"cannot be loaded: {error}", place=place) from error
    try:
        caller = run.named("reward", name, **options)
    except RecipeError as error:
        raise RecipeError(error.problem, place=place, hint=error.hint) from error

    def score(request: RewardRequest) -> list[float | None]:
        return caller.call("score", run=run, request=request)  # type: ignore[no-any-return]

    return WeightedReward(caller.entry.name, weight, score, policy, caller.plugin)


def _wrapped(function: Callable[..., list[float | None]], options: dict[str, Any]) -> Score:
    def score(request: RewardRequest) -> list[float | None]:
        return function(request.completions, **request.columns, **options)

    return score


def _parts(section: str | dict[str, Any]) -> tuple[str, float, dict[str, Any]]:
    """Name, weight and options. ValueError where there is no name, or the weight is no number."""
    written = {"name": section} if isinstance(section, str) else dict(section)
    name, weight = written.pop("name", None), written.pop("weight", 1.0)
    if not isinstance(weight, (int, float)) or not math.isfinite(weight):
        raise ValueError(f"the weight of reward {name} is {weight!r}, not a number")
    if not isinstance(name, str):
        raise ValueError(f"found {name!r}, expected the name of a reward")
    return name, float(weight), written


def _is_in_a_file(name: str) -> bool:
    """`mine.py:brief` is the function `brief` of the file `mine.py`, from the current folder."""
    return name.rpartition(":")[0].endswith(".py")


def _function(name: str, from_command_line: bool) -> Any:
    if not from_command_line:
        hint = (
            f"add it to the command: 'stage.rewards=[{{name: {name}}}]', or "
            f"stages.1.rewards in a chain"
        )
        raise ValueError(f"the file of {name} is code: only the command line may name it. {hint}")
    file, _, function = name.rpartition(":")
    spec = util.spec_from_file_location(Path(file).stem, file)
    assert spec and spec.loader  # its name ends in .py
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(found := vars(module).get(function)):
        raise ValueError(f"{file} has no function {function!r}")
    return found
