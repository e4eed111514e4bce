"""A server in this process, on a free port, whose engine says what a test wants."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import openai

from tunewright.inference import InferenceEngine
from tunewright_conformance.scripted import ScriptedEngine
from tunewright_hf.templates.info import ReplyForm, TemplateInfo
from tunewright_serve.server import Server, bound_socket
from tunewright_serve.service import Limits, Service

TOKEN = "a-token-of-the-tests"
HERMES = TemplateInfo(
    stop=("<|im_end|>",),
    thinking=("<think>", "</think>"),
    reply=ReplyForm(call=r"<tool_call>\s*", end=r"\s*</tool_call>"),
)
HELLO = [{"role": "user", "content": "Hello"}]


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def error(self) -> Any:
        return self.json["error"]


@dataclass
class Running:
    """A server that runs."""

    service: Service
    address: str
    clients: ExitStack

    @property
    def engine(self) -> Any:
        return self.service.engine

    def client(self, token: str = TOKEN, **how: Any) -> openai.OpenAI:
        """A client that is closed with the server."""
        made = openai.OpenAI(
            base_url=f"{self.address}/v1", api_key=token, max_retries=0, timeout=20, **how
        )
        return self.clients.enter_context(made)

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str | None] | None = None,
        method: str | None = None,
    ) -> Reply:
        """Send a request, with the token unless headers say otherwise."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        sent = {k: v for k, v in (given | (headers or {})).items() if v is not None}
        host = self.address.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=20)
        with closing(connection):
            connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
            answer = connection.getresponse()
            head = {key.lower(): value for key, value in answer.getheaders()}
            return Reply(answer.status, head, answer.read())

    def chat(self, **fields: Any) -> Reply:
        return self.ask("/v1/chat/completions", {"model": "m", "messages": HELLO} | fields)

    def until_idle(self, seconds: float = 5) -> None:
        """Wait until the engine and the server have no open request."""
        end = time.monotonic() + seconds
        while self.engine.stats().running or self.service.open_requests:
            assert time.monotonic() < end, (self.engine.stats(), self.service.open_requests)
            time.sleep(0.01)


@contextmanager
def served(
    engine: InferenceEngine,
    *,
    info: TemplateInfo = HERMES,
    names: dict[str, str] | None = None,
    token: str | None = TOKEN,
    hosts: tuple[str, ...] = (),
    media_hosts: frozenset[str] = frozenset(),
    **limits: Any,
) -> Iterator[Running]:
    """Serve an engine in a thread; it is closed at the end."""
    names = names or {"m": engine.models[0]} | {name: name for name in engine.models[1:]}
    service = Service(engine, info, names, Limits(**limits), media_hosts)
    with bound_socket("127.0.0.1", 0) as bound:
        server = Server(service, token=token, hosts=hosts, drain_seconds=2)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            with ExitStack() as clients:
                yield Running(service, f"http://127.0.0.1:{bound.getsockname()[1]}", clients)
        finally:
            server.should_exit = True
            thread.join()
            service.close()
            engine.close()


@contextmanager
def scripted(*script: Any, **how: Any) -> Iterator[Running]:
    """Serve a ScriptedEngine. how: options of the engine, of `served`, and limits."""
    own = {"models", "features", "max_length", "slots", "max_waiting", "defaults", "by_hand"}
    engine = ScriptedEngine(*script, **{key: how.pop(key) for key in own & how.keys()})
    with served(engine, **how) as running:
        yield running
