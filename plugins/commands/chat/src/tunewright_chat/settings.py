"""Settings of a chat: system prompt, tools, and how replies are generated."""

import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tunewright import RecipeError
from tunewright.errors import did_you_mean
from tunewright.inference import GenerateRequest
from tunewright_chat.tool_code import ToolCode

#: fields of GenerateRequest that `/params` sets
PARAMS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_new_tokens",
    "seed",
    "stop",
)
THINKING = "enable_thinking"  # a variable of the template


@dataclass
class Settings:
    """Settings that all sides of a chat share."""

    system: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)  # fields of GenerateRequest
    variables: dict[str, Any] = field(default_factory=dict)  # for the template
    code: ToolCode | None = None  # gives the results of calls, in place of the user

    def change(self, text: str) -> None:
        """Apply NAME=VALUE; without a value, the default. Raises RecipeError."""
        name, equals, written = (part.strip() for part in text.partition("="))
        if not equals or name not in (*PARAMS, THINKING):
            problem = f"found {text!r}, expected NAME=VALUE" if not equals else f"no {name!r}"
            hint = did_you_mean(name, (*PARAMS, THINKING))
            raise RecipeError(problem, place="/params", hint=hint)
        where = self.variables if name == THINKING else self.values
        if not written:
            where.pop(name, None)
            return
        expected = bool if name == THINKING else typing.get_type_hints(GenerateRequest)[name]
        try:
            where[name] = TypeAdapter(expected).validate_python(_value(name, written))
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise RecipeError(f"found {written!r:.80}: {said}", place=f"/params {name}") from error

    def shown(self) -> str:
        """All settings in a line each."""
        found = {name: self.values.get(name, "default") for name in PARAMS}
        found[THINKING] = self.variables.get(THINKING, "default")
        return "\n".join(f"{name} = {value}" for name, value in found.items())


def _value(name: str, written: str) -> Any:
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        value = written
    return (value,) if name == "stop" and isinstance(value, str) else value


def read_tools(file: Path) -> list[dict[str, Any]]:
    """Read a JSON list of tools. Raises RecipeError if the file is not a JSON list of objects."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        hint = "a JSON list of tools in OpenAI's schema is expected"
        raise RecipeError(f"cannot be read: {error}", place=str(file), hint=hint) from error
    tools = [
        tool if "function" in tool else {"type": "function", "function": tool}
        for tool in (found if isinstance(found, list) else [None])
        if isinstance(tool, dict)
    ]
    functions = [tool["function"] for tool in tools]
    named = [isinstance(each, dict) and isinstance(each.get("name"), str) for each in functions]
    if not isinstance(found, list) or len(tools) < len(found) or not all(named):
        raise RecipeError("expected a JSON list of tools in OpenAI's schema", place=str(file))
    return tools
