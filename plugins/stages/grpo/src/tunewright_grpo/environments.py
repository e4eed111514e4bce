"""Environments named in a recipe, as plugins or in files."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import Problem, RecipeError, registry
from tunewright.recipe import Section
from tunewright.resolved import choose
from tunewright.source import Source
from tunewright.types import RunContext
from tunewright_grpo.environment import Environment, Observation, ResetRequest, Start, StepRequest

__all__ = ["LoadedEnvironment", "check", "load", "objections"]

_TURNS = 8  # of an episode, by default


@dataclass(frozen=True)
class _Named:
    """The section `environment`. options: of the plugin, or arguments of the class in a file."""

    name: str
    max_turns: int
    weight: float
    options: dict[str, Any]

    @property
    def file(self) -> str:
        """The Python file that the name refers to, or which it is; empty: it is a plugin."""
        file = self.name.rpartition(":")[0] or self.name
        return file if file.endswith(".py") else ""


@dataclass
class LoadedEnvironment:
    """An environment of a recipe. weight: of its reward."""

    name: str
    plugin: Environment
    run: RunContext
    max_turns: int
    weight: float
    caller: Any = None  # of the plugin; None: it is in a file

    def reset(self, request: ResetRequest) -> Start:
        if self.caller is None:
            return self.plugin.reset(self.run, request)  # type: ignore[attr-defined,no-any-return]
        found: Start = self.caller.call("reset", run=self.run, request=request)
        return found

    def step(self, request: StepRequest) -> Observation:
        if self.caller is None:
            return self.plugin.step(self.run, request)  # type: ignore[attr-defined,no-any-return]
        found: Observation = self.caller.call("step", run=self.run, request=request)
        return found


def check(section: str | dict[str, Any]) -> None:
    """Check that the environment exists; no file is opened. Raises ValueError."""
    given = _parts(section)
    if not given.file:
        try:
            registry.find("environment", given.name)
        except RecipeError as error:
            raise ValueError(str(error)) from error


def is_named(
    section: str | dict[str, Any], written_there: Callable[..., bool], at: tuple[str | int, ...]
) -> bool:
    """Whether the name was given on the command line. written_there: from_command_line of the run
    or the recipe's source. at: the section's place."""
    return written_there(*at, "name") or (isinstance(section, str) and written_there(*at))


def objections(
    section: str | dict[str, Any], source: Source, at: tuple[str | int, ...]
) -> Iterator[Problem]:
    """A file that the recipe names, and options of a plugin that are wrong."""
    given = _parts(section)
    if given.file:
        if not is_named(section, source.from_command_line, at):
            yield Problem(at, *_code(given.name))
        return
    try:
        written = Section(name=given.name, **given.options)
        choose("environment", written, Source(f"environment {given.name}"), ()).make()
    except RecipeError as error:
        yield Problem(at, error.problem, error.hint)


def load(
    section: str | dict[str, Any], run: RunContext, *, from_command_line: bool
) -> LoadedEnvironment:
    """Load an environment: a plugin, functions of a file (tools.py), or a class in one
    (game.py:Game).

    from_command_line: whether the name was given there; files are code, and are run only then.
    Raises RecipeError if it cannot be loaded.
    """
    given, place = _parts(section), "stage.environment"
    if given.file:
        if not from_command_line:
            problem, hint = _code(given.name)
            raise RecipeError(problem, place=place, hint=hint)
        plugin = _from_file(given, place)
        return LoadedEnvironment(given.name, plugin, run, given.max_turns, given.weight)
    try:
        caller = run.named("environment", given.name, **given.options)
    except RecipeError as error:
        raise RecipeError(error.problem, place=place, hint=error.hint) from error
    return LoadedEnvironment(given.name, caller.plugin, run, given.max_turns, given.weight, caller)


def _code(name: str) -> tuple[str, str]:
    """Problem and hint where a recipe names a file."""
    return (
        f"{name} is code: only the command line may name it",
        f"add it to the command: 'stage.environment={{name: {name}}}'",
    )


def _from_file(given: _Named, place: str) -> Environment:
    from tunewright_grpo.in_files import FunctionTools, Game, import_file

    module = import_file(Path(given.file), place)
    if given.file == given.name:
        if given.options:
            problem = f"{', '.join(given.options)}: a file of functions takes no options"
            raise RecipeError(problem, place=place)
        return FunctionTools(module, place)
    name = given.name.rpartition(":")[2]
    found = vars(module).get(name)
    if not inspect.isclass(found):
        raise RecipeError(f"{given.file} has no class {name!r}", place=place)
    return Game(found, given.options, place)


def _parts(section: str | dict[str, Any]) -> _Named:
    """The section's own keys, and the options. Raises ValueError if one is wrong."""
    written = {"name": section} if isinstance(section, str) else dict(section)
    name, turns = written.pop("name", None), written.pop("max_turns", _TURNS)
    weight: Any = written.pop("weight", 1.0)
    if not isinstance(name, str):
        raise ValueError(f"found {name!r}, expected the name of an environment")
    if not isinstance(turns, int) or isinstance(turns, bool) or turns < 1:
        raise ValueError(f"max_turns of {name} is {turns!r}: expected a whole number from 1 on")
    if not isinstance(weight, (int, float)) or not math.isfinite(weight):
        raise ValueError(f"the weight of {name} is {weight!r}, not a number")
    return _Named(name, turns, float(weight), written)
