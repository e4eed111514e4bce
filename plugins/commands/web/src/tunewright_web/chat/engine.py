"""One process of `tunewright serve`, which answers the chats with one model."""

import collections
import contextlib
import http.client
import json
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from tunewright.terminal import printable
from tunewright_web.errors import WebError
from tunewright_web.workspace import write_file

__all__ = ["Engine", "Reading", "State"]

State = Literal["loading", "ready", "failed", "ended"]
_SERVING = re.compile(r" at http://127\.0\.0\.1:(\d+)/v1$")
_LINES, _LETTERS = 200, 500  # of what the process says are kept
_READ_SECONDS = 620  # more than an answer may take
_LISTENS = 20  # seconds until a process listens that has printed its address


class Engine:
    """A process with a model. It is started at once, and loads the model by itself.

    arguments: of `tunewright serve`. folder: for its token, for a moment. The process ends with
    this one, however this one ends.
    """

    def __init__(self, arguments: list[str], *, cwd: Path, folder: Path) -> None:
        self.arguments = arguments
        self.started = self.used = time.monotonic()
        self.ready_after: float | None = None  # seconds
        self.features: frozenset[str] = frozenset()
        self.max_length: int | None = None
        self.answering = 0  # replies that are being generated
        self._lines: collections.deque[str] = collections.deque(maxlen=_LINES)
        self._port = 0
        self._ended = False  # by us
        self._changed = threading.Condition()
        self._token = secrets.token_urlsafe(24)
        self._token_file = folder / f".token-{secrets.token_hex(8)}"
        write_file(self._token_file, self._token)  # of mode 0600
        self._process = subprocess.Popen(
            self._command(),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the server
        )
        threading.Thread(target=self._read, name="tunewright-chat", daemon=True).start()

    def _command(self) -> list[str]:
        given = ["--port", "0", "--token-file", str(self._token_file), "--drain", "1"]
        return [sys.executable, "-m", "tunewright_web.chat.leash", *given, *self.arguments]

    @property
    def state(self) -> State:
        if self._process.poll() is not None:
            return "ended" if self._ended else "failed"
        return "ready" if self.ready_after is not None else "loading"

    @property
    def seconds(self) -> float:
        """Seconds that loading has taken so far."""
        if self.ready_after is not None:
            return self.ready_after
        return time.monotonic() - self.started

    @property
    def line(self) -> str:
        """Last line that the process has printed; of one that failed, its error."""
        return self._lines[-1] if self._lines else ""

    @property
    def lines(self) -> list[str]:
        return list(self._lines)

    def wait(self, seconds: float) -> State:
        """Wait until the model is loaded, or has failed to; at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self.state != "loading", seconds)
        return self.state

    def end(self) -> None:
        """End the process. Does not wait."""
        self._ended = True
        assert self._process.stdin
        self._process.stdin.close()

    # ---- requests --------------------------------------------------------------------------------

    def ask(self, path: str, body: Any = None) -> Any:
        """JSON of a request. Raises WebError."""
        with closing(self._connection()) as connection:
            answer = self._sent(connection, path, body)
            return json.loads(answer.read())

    def stream(self, path: str, body: Any) -> "Reading":
        """Begin a reply. Raises WebError."""
        connection = self._connection()
        try:
            connection.connect()
            connected = connection.sock
            return Reading(connected, self._sent(connection, path, body))
        except OSError as error:
            raise WebError(f"the model's process has ended: {self.line}", status=502) from error

    def _connection(self) -> http.client.HTTPConnection:
        self.used = time.monotonic()
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_READ_SECONDS)

    def _sent(
        self, connection: http.client.HTTPConnection, path: str, body: Any
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            if answer.status == 200:
                return answer
            said = json.loads(answer.read())["error"]["message"]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            why = self.line if self.state == "failed" else type(error).__name__
            raise WebError(f"the model's process does not answer: {why}", status=502) from error
        raise WebError(printable(said), status=422 if answer.status < 500 else 502)

    # ---- its output ------------------------------------------------------------------------------

    def _read(self) -> None:
        """Keep what the process prints, until it ends: a pipe that nobody reads would stop it."""
        assert self._process.stdout
        for line in _split(self._process.stdout):
            self._lines.append(line)
            if found := _SERVING.search(line):
                self._serving(int(found[1]))
        self._process.wait()
        self._token_file.unlink(missing_ok=True)
        with self._changed:
            self._changed.notify_all()

    def _serving(self, port: int) -> None:
        """Ask what the model can do. The process prints its address just before it listens."""
        self._port = port
        end = time.monotonic() + _LISTENS
        while True:
            try:
                [model, *_] = self.ask("/v1/models")["data"]
                break
            except WebError as error:
                if time.monotonic() > end or self._process.poll() is not None:
                    self._lines.append(error.error)
                    self._process.terminate()
                    return
                time.sleep(0.05)
        self.features = frozenset(model.get("features", ()))
        self.max_length = model.get("max_model_len")
        self.ready_after = time.monotonic() - self.started
        self._token_file.unlink(missing_ok=True)
        with self._changed:
            self._changed.notify_all()


def _split(stream: Any) -> Iterator[str]:
    """Lines, also those that a progress bar ends with a carriage return."""
    rest = b""
    while data := stream.read1(65536):
        *whole, rest = re.split(rb"[\r\n]+", rest + data)
        rest = rest[-65536:]
        for each in whole:
            if text := each.decode(errors="replace").strip():
                yield printable(text)[:_LETTERS]
    if text := rest.decode(errors="replace").strip():
        yield printable(text)[:_LETTERS]


class Reading:
    """A reply that arrives. `end` may be called from another thread."""

    def __init__(self, connected: socket.socket, answer: http.client.HTTPResponse) -> None:
        self._socket, self._answer = connected, answer
        self._ended = False

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Chunks of OpenAI's wire. Ends early after `end`. Raises WebError."""
        try:
            for line in self._answer:
                data = line.removeprefix(b"data: ").strip()
                if not line.startswith(b"data: ") or data == b"[DONE]":
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise WebError(printable(str(chunk["error"]["message"])), status=502)
                yield chunk
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._ended:
                raise WebError("the model's process has ended", status=502) from error
        finally:
            self._answer.close()
            self._socket.close()

    def end(self) -> None:
        """Have the model stop."""
        self._ended = True
        with contextlib.suppress(OSError):  # it has ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)
