"""Environments behind servers, with real ones: the conformance suite, and what goes wrong."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import uvicorn
from mcp.server import MCPServer

from tunewright import RecipeError, RunError
from tunewright.types import Message, ToolCall
from tunewright_conformance import environment
from tunewright_environments import Http, Mcp
from tunewright_grpo.environment import ResetRequest, StepRequest

TIMES = {
    "type": "function",
    "function": {
        "name": "times",
        "description": "Multiply two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
CALL = {"name": "times", "arguments": {"a": 6, "b": 7}}
RUN: Any = None  # no environment here looks at the run


class Endpoint(BaseHTTPRequestHandler):
    """Multiplies, and rewards the row's answer."""

    token = ""
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        self.answer(200, {"tools": [TIMES]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(asked)
        if self.path == "/broken/call":
            self.answer(500, {})
        elif self.path == "/slow/call":
            time.sleep(0.6)
            self.answer(200, {"result": "late"})
        elif asked["arguments"].keys() != {"a", "b"}:
            self.answer(400, {"why": "a and b"})
        else:
            value = asked["arguments"]["a"] * asked["arguments"]["b"]
            right = asked["columns"].get("answer") == value
            self.answer(200, {"result": str(value), "reward": 0.5 if right else 0.0})

    def answer(self, status: int, found: dict[str, Any]) -> None:
        if self.token and self.headers["Authorization"] != f"Bearer {self.token}":
            status, found = 401, {"why": "no token"}
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not to the terminal."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def mcp_server() -> Iterator[str]:
    """A server of the library itself, as its users write one."""
    made = MCPServer("numbers")

    @made.tool()
    def times(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    @made.tool()
    def fails() -> str:
        """Fails."""
        raise ValueError("out of order")

    app = made.streamable_http_app(stateless_http=True)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/mcp"
    server.should_exit = True
    thread.join()


class TestHttp(environment.TestEnvironment):
    plugin = "http"
    needs = ""
    columns: ClassVar = {"answer": 42}
    turns = (CALL, "42")

    @pytest.fixture
    def further_options(self, endpoint: str) -> dict[str, Any]:
        return {"url": endpoint}


class TestMcp(environment.TestEnvironment):
    plugin = "mcp"
    needs = ""
    turns = (CALL, {"name": "fails", "arguments": {}}, "42")

    @pytest.fixture
    def further_options(self, mcp_server: str) -> dict[str, Any]:
        return {"url": mcp_server}


def http(url: str, **options: Any) -> Http:
    return Http(Http.Options(url=url, **options), "http")


def mcp(url: str, **options: Any) -> Mcp:
    return Mcp(Mcp.Options(url=url, **options), "mcp")


def results(made: Any, *calls: ToolCall) -> tuple[list[str], float | None]:
    start = made.reset(RUN, ResetRequest({"answer": 42}, 0))
    message = Message("assistant", tool_calls=list(calls))
    found = made.step(RUN, StepRequest(start.episode, message, ""))
    return [str(each.content) for each in found.messages], made.finish(start.episode)


def test_results_and_rewards(endpoint: str, mcp_server: str) -> None:
    calls = [ToolCall("times", {"a": 6, "b": 7}), ToolCall("times", {"a": 2, "b": 21})]
    assert results(http(endpoint), *calls) == (["42", "42"], 1.0)
    assert Endpoint.seen[-1] == {
        "name": "times",
        "arguments": {"a": 2, "b": 21},
        "columns": {"answer": 42},
    }
    made = mcp(mcp_server)
    assert results(made, *calls) == (["42", "42"], None)
    made.close()


def test_errors_are_results(endpoint: str, mcp_server: str) -> None:
    (wrong,), reward = results(http(endpoint), ToolCall("times", {"c": 1}))
    assert wrong == 'error: answers 400: {"why": "a and b"}'
    assert reward is None
    (late,), _ = results(http(f"{endpoint}/slow", timeout=0.2), ToolCall("times", {"a": 1, "b": 1}))
    assert late == "error: no result within 0.2 seconds"
    made = mcp(mcp_server)
    (failed, unknown), _ = results(made, ToolCall("fails", {}), ToolCall("more", {}))
    assert failed.startswith("error: ")
    assert "fails" in failed
    assert unknown == "error: there is no tool 'more', only times, fails"
    made.close()


def test_an_endpoint_that_is_gone_ends_the_run(endpoint: str) -> None:
    with pytest.raises(RunError, match=r"/broken/call: answers 500"):
        results(http(f"{endpoint}/broken"), ToolCall("times", {"a": 1, "b": 1}))
    with pytest.raises(RecipeError, match="refused"):
        http("http://127.0.0.1:9").tools()
    with pytest.raises(RecipeError, match=r"no MCP server answers at http://127\.0\.0\.1:9/mcp"):
        mcp("http://127.0.0.1:9/mcp").tools()


def test_an_mcp_server_that_goes_away(endpoint: str) -> None:
    """Something else answers there."""
    with pytest.raises(RecipeError, match="no MCP server answers"):
        mcp(f"{endpoint}/mcp", timeout=5).tools()


def test_chosen_tools(mcp_server: str) -> None:
    made = mcp(mcp_server, tools=["times"])
    assert [tool["function"]["name"] for tool in made.tools()] == ["times"]
    made.close()
    made = mcp(mcp_server, tools=["time"])
    with pytest.raises(RecipeError, match=r"no tool 'time'.*it has: times, fails"):
        made.tools()
    made.close()


def test_the_token(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "token", "secret")
    with pytest.raises(RecipeError, match="answers 401"):
        http(endpoint).tools()
    named = SimpleNamespace(token_variable="TUNEWRIGHT_TEST_TOKEN")
    with pytest.raises(RecipeError, match="TUNEWRIGHT_TEST_TOKEN holds no token"):
        http(endpoint, **vars(named)).tools()
    monkeypatch.setenv("TUNEWRIGHT_TEST_TOKEN", "secret")
    assert http(endpoint, **vars(named)).tools() == [TIMES]
    monkeypatch.delenv("TUNEWRIGHT_TEST_TOKEN")
    made = http(endpoint, **vars(named))
    made._tools = [TIMES]
    with pytest.raises(RecipeError, match="holds no token"):  # not a result that the model reads
        results(made, ToolCall("times", {"a": 1, "b": 1}))


def test_threads_begin_one_session(mcp_server: str) -> None:
    """Episodes are answered in threads."""
    made = mcp(mcp_server)
    with ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(lambda _: made.session, range(8)))
    assert len({id(session) for session in sessions}) == 1
    made.close()
