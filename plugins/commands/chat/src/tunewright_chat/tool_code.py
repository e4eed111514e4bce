"""Results of tool calls from functions in the user's own Python file."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright import RecipeError
from tunewright.types import ToolCall

_LONGEST = 100_000  # characters of a result


class ToolCode:
    """Functions of a file, one for each tool and named like it. Their arguments are the call's."""

    def __init__(self, file: Path, tools: list[dict[str, Any]]) -> None:
        """Run the file. Raises RecipeError if it fails, or lacks a function."""
        spec = importlib.util.spec_from_file_location("tunewright_chat_tools", file)
        if spec is None or spec.loader is None or not file.is_file():
            raise RecipeError("is no Python file", place=str(file))
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            problem = f"cannot be run: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise RecipeError(problem, place=str(file)) from error
        names = [tool["function"]["name"] for tool in tools]
        if lacking := [name for name in names if not callable(getattr(module, name, None))]:
            raise RecipeError(f"has no function {lacking[0]!r}", place=str(file))
        self._functions: dict[str, Callable[..., Any]] = {
            name: getattr(module, name) for name in names
        }

    def result(self, call: ToolCall) -> str:
        """Call the function. An exception is a result, which the model reads."""
        if call.name not in self._functions:
            return f"error: there is no tool {call.name!r}"
        try:
            value = self._functions[call.name](**call.arguments)
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except Exception as error:
            return f"error: {type(error).__name__}: {error}"
        return text[:_LONGEST]
