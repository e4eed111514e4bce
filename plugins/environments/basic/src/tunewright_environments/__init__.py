"""Environments of tools: a calculator, an HTTP endpoint, and MCP servers."""

import threading
from typing import Any

from pydantic import Field, field_validator

from tunewright import PluginOptions, RecipeError, hookimpl
from tunewright.types import RunContext
from tunewright_grpo.environment import ResetRequest, Start, ToolEnvironment

_CALCULATE = {
    "type": "function",
    "function": {
        "name": "calculate",
        "description": "Calculate the value of an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "Numbers, + - * / // % **, and parentheses.",
                }
            },
            "required": ["expression"],
        },
    },
}


class Calculator(ToolEnvironment):
    """One tool, `calculate`, that gives the value of an arithmetic expression. It gives no reward:
    rewards compare the last turn with the right answer."""

    def tools(self) -> list[dict[str, Any]]:
        return [_CALCULATE]

    def call(self, name: str, arguments: dict[str, Any], episode: Any) -> str:
        from tunewright_environments.arithmetic import evaluate

        if arguments.keys() != {"expression"}:
            given = ", ".join(arguments) or "none"
            raise ValueError(f"expected the argument expression, found {given}")
        return evaluate(str(arguments["expression"]))


def _is_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("expected an address that begins with http:// or https://")
    return url


class Http(ToolEnvironment):
    """Tools behind an HTTP endpoint. GET `url`/tools gives {"tools": [...]}, OpenAI's JSON schemas.
    POST `url`/call with {"name", "arguments", "columns"} gives {"result": text}; `columns` are
    those of the row. A response may have `reward`: the rewards of an episode are added up.

    What the model writes and the columns leave the machine unless `url` is local.
    """

    concurrent = True

    class Options(PluginOptions):
        url: str = Field(examples=["http://127.0.0.1:8000"])
        """Address of the endpoint, http or https."""
        timeout: float = Field(60.0, gt=0, le=86_400)
        """Seconds for each request. A call that takes longer has an error as its result."""
        token_variable: str | None = None
        """Environment variable with the token that is sent as `Authorization: Bearer`."""

        _url = field_validator("url")(_is_url)

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._tools: list[dict[str, Any]] | None = None

    def tools(self) -> list[dict[str, Any]]:
        from tunewright_environments.endpoint import tools

        if self._tools is None:
            self._tools = tools(self.options, self.name)
        return self._tools

    @hookimpl
    def reset(self, run: RunContext, request: ResetRequest) -> Start:
        return Start({"columns": request.columns, "reward": None})

    def call(self, name: str, arguments: dict[str, Any], episode: Any) -> str:
        from tunewright_environments.endpoint import call

        body = {"name": name, "arguments": arguments, "columns": episode["columns"]}
        text, reward = call(self.options, self.name, body)
        if reward is not None:
            episode["reward"] = (episode["reward"] or 0.0) + reward
        return text

    def finish(self, episode: Any) -> float | None:
        reward: float | None = episode["reward"]
        return reward


class Mcp(ToolEnvironment):
    """Tools of a server that speaks the Model Context Protocol over streamable HTTP, through the
    library mcp. A server that speaks over stdio is a program that this machine would run: start it
    behind a proxy, such as mcp-proxy, yourself.

    What the model writes leaves the machine unless `url` is local.
    """

    concurrent = True

    class Options(PluginOptions):
        url: str = Field(examples=["http://127.0.0.1:8000/mcp"])
        """Address of the server, http or https."""
        tools: list[str] | None = None
        """Names of the tools that are offered. Default: all."""
        timeout: float = Field(60.0, gt=0, le=86_400)
        """Seconds for each request. A call that takes longer has an error as its result."""
        token_variable: str | None = None
        """Environment variable with the token that is sent as `Authorization: Bearer`."""

        _url = field_validator("url")(_is_url)

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._session: Any = None
        self._beginning = threading.Lock()  # episodes are answered in threads

    @property
    def session(self) -> Any:
        """The session with the server, begun at first use. Raises RecipeError."""
        from tunewright_environments.mcp_session import McpSession

        with self._beginning:
            if self._session is None:
                self._session = McpSession(self.options, self.name)
            return self._session

    def tools(self) -> list[dict[str, Any]]:
        there: list[dict[str, Any]] = self.session.tools
        wanted = self.options.tools
        if wanted is None:
            return there
        found = {tool["function"]["name"]: tool for tool in there}
        if missing := [name for name in wanted if name not in found]:
            raise RecipeError(
                f"the server has no tool {missing[0]!r}",
                place=f"environment {self.name}",
                hint=f"it has: {', '.join(found)}",
            )
        return [found[name] for name in wanted]

    def call(self, name: str, arguments: dict[str, Any], episode: Any) -> str:
        text: str = self.session.call(name, arguments)
        return text

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
