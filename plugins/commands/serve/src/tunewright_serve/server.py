"""Opening the run and the engine, the socket, and the HTTP server's beginning and end."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from tunewright import RunError
from tunewright.inference import SamplingDefaults
from tunewright_serve.app import make_app
from tunewright_serve.auth import Gate
from tunewright_serve.service import Service
from tunewright_serve.sse import Connection

__all__ = ["Server", "bound_socket", "described_defaults", "signals_end_the_server"]

HEADER_SECONDS = 20  # for the headers of a request to arrive


class Server(uvicorn.Server):
    """HTTP server of a service on a bound socket. `serve` returns after SIGTERM or Ctrl-C, when the
    open requests have ended, at the latest after drain_seconds."""

    def __init__(
        self,
        service: Service,
        *,
        token: str | None,
        hosts: tuple[str, ...] = (),
        drain_seconds: int = 30,
    ) -> None:
        config = uvicorn.Config(
            Gate(make_app(service), token, hosts),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here asks for the client's address
            lifespan="off",
            ws="none",
            timeout_keep_alive=60,
            timeout_graceful_shutdown=drain_seconds,
        )
        config.load()
        config.http_protocol_class = _watched(config.http_protocol_class)
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.draining = True
        super().handle_exit(sig, frame)


def _watched(base: Any) -> Any:
    """Protocol that closes a connection whose request's headers do not arrive in time, and tells
    requests when their connection is lost.

    uvicorn (0.54) limits only the time between requests. `cycle` is its current request, and each
    request has a copy of `app_state` as the state of its scope.
    """

    class Protocol(base):
        app_state: dict[str, Any]

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._connection = Connection()
            self.app_state = self.app_state | {"connection": self._connection}
            self._seen = None  # the cycle at the last look
            self._watch = self.loop.call_later(HEADER_SECONDS, self._look)

        def _look(self) -> None:
            is_waiting = self.cycle is None or self.cycle.response_complete
            if is_waiting and self.cycle is self._seen:  # no request since the last look
                self.transport.close()
                return
            self._seen = self.cycle
            self._watch = self.loop.call_later(HEADER_SECONDS, self._look)

        def connection_lost(self, error: Exception | None) -> None:
            self._watch.cancel()
            super().connection_lost(error)
            self._connection.lose()

    return Protocol


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet, so that a port that is taken is found before the model is
    loaded. Raises RunError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        problem = f"cannot be bound: {error.strerror or error}"
        hint = "choose another with --port; 0 takes any that is free"
        raise RunError(problem, place=f"{host}:{port}", hint=hint) from error
    return made


@contextmanager
def signals_end_the_server() -> Iterator[None]:
    """After uvicorn has drained, it raises the signal again: by then all is done."""
    old = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler, not SIG_IGN, which a child process would inherit."""


def described_defaults(defaults: SamplingDefaults) -> str:
    """One line on what a request gets that says nothing."""
    said = [f"{name} {value:g}" for name, value in defaults.given().items()]
    if not said:
        return "Sampling defaults: greedy (the checkpoint gives none)"
    return f"Sampling defaults: {', '.join(said)} (of the checkpoint)"
