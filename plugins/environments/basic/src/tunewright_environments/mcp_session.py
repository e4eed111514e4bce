"""A session with an MCP server, kept open by a thread of its own."""

import asyncio
import os
from collections.abc import Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

from tunewright import RecipeError, RunError

T = TypeVar("T")
_LONGEST = 100_000  # characters of a result
_GRACE = 5.0  # seconds after a time limit, in which the library itself may say it


class McpSession:
    """Connected while it exists. tools: those of the server, as OpenAI's JSON schemas."""

    def __init__(self, options: Any, name: str) -> None:
        """options: Mcp.Options. Raises RecipeError if the library, the token or the server is
        missing."""
        self._options, self._place = options, f"environment {name}"
        try:
            import mcp
        except ImportError as error:
            hint = "pip install 'tunewright-environments[mcp]'"
            raise RecipeError(
                "the library mcp is not installed", place=self._place, hint=hint
            ) from error
        self._client_class = mcp.Client
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True, name="mcp")
        self._thread.start()
        self._ended = asyncio.Event()
        ready: asyncio.Future[Any] = self._loop.create_future()
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(ready), self._loop)
        try:
            self._client, self.tools = self._wait(_awaited(ready))
        except Exception as error:
            self.close()
            raise RecipeError(
                f"no MCP server answers at {options.url}: {_said(error)}", place=self._place
            ) from error

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Text of a result. Raises ValueError for the server's own error, RunError if it is
        gone."""
        from mcp import MCPError

        try:
            found = self._wait(self._client.call_tool(name, arguments))
        except MCPError as error:
            raise ValueError(str(error)) from error
        except TimeoutError:
            raise ValueError(f"no result within {self._options.timeout:g} seconds") from None
        except Exception as error:
            problem = f"the MCP server at {self._options.url} is gone: {_said(error)}"
            raise RunError(problem, place=self._place) from error
        texts = [part.text if part.type == "text" else f"[{part.type}]" for part in found.content]
        text = "\n".join(texts)[:_LONGEST]
        if found.is_error:
            raise ValueError(text)
        return text

    def close(self) -> None:
        """End the session and its thread."""
        self._loop.call_soon_threadsafe(self._ended.set)
        with suppress(Exception):  # the server may be gone
            self._serving.result(_GRACE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_GRACE)
        if not self._thread.is_alive():
            self._loop.close()

    async def _serve(self, ready: "asyncio.Future[Any]") -> None:
        """Open the session, and close it in the same task when it is ended."""
        try:
            async with self._client_class(
                self._transport(), read_timeout_seconds=self._options.timeout
            ) as client:
                ready.set_result((client, await self._offered(client)))
                await self._ended.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(_first(error))
            else:
                raise

    def _transport(self) -> Any:
        variable = self._options.token_variable
        if variable is None:
            return self._options.url
        if not os.environ.get(variable):
            raise ValueError(f"the environment variable {variable} holds no token")
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        headers = {"Authorization": f"Bearer {os.environ[variable]}"}
        client = create_mcp_http_client(headers)
        return streamable_http_client(self._options.url, http_client=client)

    async def _offered(self, client: Any) -> list[dict[str, Any]]:
        tools, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            tools += [_schema(tool) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return tools

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(self._options.timeout + _GRACE)
        except TimeoutError:
            future.cancel()
            raise


async def _awaited(future: "asyncio.Future[T]") -> T:
    return await future


def _schema(tool: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": tool.input_schema,
        },
    }


def _first(error: BaseException) -> BaseException:
    """The first error of a group, as task groups raise them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(error: BaseException) -> str:
    found = _first(error)
    return " ".join(str(found).split())[:300] or type(found).__name__
