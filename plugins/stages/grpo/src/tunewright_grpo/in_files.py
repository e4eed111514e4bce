"""Environments in the user's own Python files: functions as tools, and classes like Gymnasium's."""

import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tunewright import PluginOptions, RecipeError, hookimpl
from tunewright.types import Message, RunContext
from tunewright_grpo.environment import (
    Environment,
    Observation,
    ResetRequest,
    Start,
    StepRequest,
    ToolEnvironment,
)

__all__ = ["FunctionTools", "Game", "import_file"]

_LONGEST = 100_000  # characters of a result


def import_file(file: Path, place: str) -> ModuleType:
    """Run a Python file as a module. Raises RecipeError if there is none, or it fails."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise RecipeError(f"{file} is no Python file", place=place)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RecipeError(f"{file} cannot be run: {said}", place=place) from error
    return module


class FunctionTools(ToolEnvironment):
    """Tools are the public functions that a file defines. Their schemas come from type hints and
    docstrings, as transformers reads them (`transformers.utils.get_json_schema`)."""

    def __init__(self, module: ModuleType, place: str) -> None:
        """Raises RecipeError if the file has no function, or one that no schema can be made of."""
        from transformers.utils import get_json_schema

        super().__init__(PluginOptions())
        self._functions: dict[str, Callable[..., Any]] = {
            name: each
            for name, each in vars(module).items()
            if inspect.isfunction(each)
            and each.__module__ == module.__name__
            and not name.startswith("_")
        }
        if not self._functions:
            problem = f"{module.__file__} defines no public function"
            classes = [name for name, each in vars(module).items() if hasattr(each, "step")]
            hint = (
                f"a class is named beside its file: {module.__name__}.py:{classes[0]}"
                if classes
                else ""
            )
            raise RecipeError(problem, place=place, hint=hint)
        self._schemas = []
        for name, function in self._functions.items():
            try:
                self._schemas.append(get_json_schema(function))
            except Exception as error:
                said = " ".join(str(error).split())[:300]
                hint = "give each argument a type and a line under `Args:` in the docstring"
                raise RecipeError(f"{name}: {said}", place=place, hint=hint) from error

    def tools(self) -> list[dict[str, Any]]:
        return self._schemas

    def call(self, name: str, arguments: dict[str, Any], episode: Any) -> str:
        value = self._functions[name](**arguments)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text[:_LONGEST]


class Game(Environment):
    """A class of a file, an object for each episode: `reset(**columns)` returns the first
    observation or None, `step(text)` the next one, a reward, and whether the episode is done. The
    rewards of its steps are added up."""

    def __init__(self, made_of: type, options: dict[str, Any], place: str) -> None:
        """Raises RecipeError if the class lacks a method."""
        super().__init__(PluginOptions())
        self._class, self._options, self._place = made_of, options, place
        for name in ("reset", "step"):
            if not callable(getattr(made_of, name, None)):
                raise RecipeError(f"class {made_of.__name__} has no {name}()", place=place)

    @hookimpl
    def reset(self, run: RunContext, request: ResetRequest) -> Start:
        game = self._class(**self._options)
        seen = game.reset(**request.columns, seed=request.seed)
        return Start({"game": game, "reward": 0.0}, "" if seen is None else str(seen))

    @hookimpl
    def step(self, run: RunContext, request: StepRequest) -> Observation:
        state = request.episode
        seen, reward, done = state["game"].step(request.message.content)
        state["reward"] += float(reward)
        return Observation([] if done else [Message("user", str(seen)[:_LONGEST])])

    def finish(self, episode: Any) -> float | None:
        if callable(close := getattr(episode["game"], "close", None)):
            close()
        return float(episode["reward"])
