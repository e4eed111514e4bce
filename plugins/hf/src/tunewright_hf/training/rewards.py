"""Reward functions: what an answer that a model wrote is worth.

A reward is a function in the entry-point group `tunewright.reward`, or in a Python file that the
command line names:

    def reward(completions: list[str], **columns: list) -> list[float | None]

completions: the answers' text, without stop token. columns: the columns of the answers' rows by
name, as long as completions, `prompts` (their text) among them. What a recipe says besides `name`
and `weight` is handed on by name. Gives one number for each answer; None where it has nothing to
say of it. With several processes each asks for its own answers.

A reward that has something to get ready is a class. It is made once, before the first step, with
`run`, `policy` (the model that is trained: types.Loaded) and what the recipe says, and is then
called as a function is, with the columns alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError
from tunewright.errors import did_you_mean
from tunewright.types import LoadedModel

GROUP = "tunewright.reward"


@dataclass(frozen=True)
class Reward:
    name: str
    weight: float
    function: Callable[..., list[float | None]]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, completions: list[str], columns: dict[str, list[Any]]) -> list[float]:
        """One number for each answer, NaN where the function says nothing. Raises RunError where it
        fails."""
        place = f"reward {self.name}"
        try:
            given = list(self.function(completions, **columns, **self.options))
            found = [math.nan if value is None else float(value) for value in given]
        except Exception as error:
            raise RunError(f"fails: {type(error).__name__}: {error}", place=place) from error
        if len(found) != len(completions):
            raise RunError(f"gave {len(found)} numbers for {len(completions)} answers", place=place)
        for number, value in zip(found, given, strict=True):
            if value is not None and not math.isfinite(number):
                raise RunError(
                    f"gave {number}",
                    place=place,
                    hint="None is for answers that it says nothing of",
                )
        return found


def check(section: str | dict[str, Any]) -> None:
    """Whether there is such a reward; nothing is imported, and no file is opened. ValueError where
    there is none."""
    name, _, _ = _parts(section)
    if not _is_in_a_file(name):
        _point(name)


def load(
    section: str | dict[str, Any],
    place: str,
    run: Any,
    policy: LoadedModel,
    *,
    from_command_line: bool,
) -> Reward:
    """The reward that a recipe names: `exact_match`, or a mapping with name, weight and what it
    takes.

    from_command_line: whether the name was written there; files are code, and are run only then.
    Raises RecipeError where it cannot be imported, or is none.
    """
    try:
        name, weight, options = _parts(section)
        function = (
            _function(name, from_command_line) if _is_in_a_file(name) else _point(name).load()
        )
        if isinstance(function, type):
            return Reward(name, weight, function(run=run, policy=policy, **options))
    except RecipeError:
        raise
    except Exception as error:
        raise RecipeError(f"cannot be loaded: {error}", place=place) from error
    return Reward(name.rpartition(":")[2], weight, function, options)


def _parts(section: str | dict[str, Any]) -> tuple[str, float, dict[str, Any]]:
    """Name, weight, and what the function takes. ValueError where there is no name, or the weight
    is no number."""
    written = {"name": section} if isinstance(section, str) else dict(section)
    name, weight = written.pop("name", None), written.pop("weight", 1.0)
    if not isinstance(weight, (int, float)) or not math.isfinite(weight):
        raise ValueError(f"the weight of reward {name} is {weight!r}, not a number")
    if not isinstance(name, str):
        raise ValueError(f"no installed reward is called {name!r}")
    return name, float(weight), written


def _point(name: str) -> metadata.EntryPoint:
    """ValueError where no installed distribution has it, or two have."""
    points = metadata.entry_points(group=GROUP)
    named = [point for point in points if point.name == name]
    if not named:
        close = did_you_mean(name, {point.name for point in points})
        raise ValueError(f"no installed reward is called {name!r} ({close})")
    if len(named) > 1:
        owners = " and ".join(sorted(point.dist.name for point in named if point.dist))
        raise ValueError(f"{owners} both have a reward called {name!r}: uninstall one")
    return named[0]


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
