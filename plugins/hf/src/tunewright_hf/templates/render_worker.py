"""Renders templates of checkpoints in a process that can be killed.

A deadline inside the process is not enough: `10**10**7` blocks the interpreter for minutes.
Requests and answers are JSON lines over pipes: `{"source", "variables", "limit"}` → `{"text"}` or
`{"blamed", "problem"}`.
"""

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from functools import lru_cache
from typing import IO, Any

from tunewright_hf.templates.sandbox import compile_template, describe, pieces

__all__ = ["RenderWorker", "WorkerError"]

# and no secrets
_ENVIRONMENT = (
    "PATH",
    "SYSTEMROOT",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
)

# The parent's workers, after a fork. They must not be used or dropped: closing a pipe would wait
# for the lock of the thread that reads from it, which does not exist in the fork.
_INHERITED: list["subprocess.Popen[bytes]"] = []


class WorkerError(Exception):
    """A checkpoint's template could not be rendered. blamed: `template` or `row`."""

    def __init__(self, blamed: str, problem: str) -> None:
        super().__init__(problem)
        self.blamed = blamed


class RenderWorker:
    """A worker process, started at the first render and kept. One render at a time; works in
    threads, and after a fork.

    timeout: seconds per render; memory: bytes of address space, if the system supports a limit;
    output: characters
    """

    def __init__(
        self, timeout: float = 5.0, memory: int = 1 << 29, output: int = 10_000_000
    ) -> None:
        self._timeout, self._memory, self._output = timeout, memory, output
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that started it: a fork must not share its pipes
        self._answers: queue.Queue[bytes]
        atexit.register(self.close)

    def render(self, source: str, variables: dict[str, Any]) -> str:
        """Render `source` with the JSON-like `variables`. Raises WorkerError."""
        request = {
            "source": source,
            "variables": variables,
            "limit": self._output,
            "seconds": self._timeout,
        }
        with self._lock:
            if (
                self._process is None
                or self._owner != os.getpid()
                or self._process.poll() is not None
            ):
                self._start()
            answer = self._ask(json.dumps(request).encode() + b"\n")
        if "text" not in answer:
            raise WorkerError(answer["blamed"], answer["problem"])
        return answer["text"]

    def close(self) -> None:
        """Kill the worker, if it runs. The next render starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._owner != os.getpid():
            _INHERITED.append(process)
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # unread data can no longer be flushed
                pipe.close()  # type: ignore[union-attr]

    def _start(self) -> None:
        self.close()
        self._process = subprocess.Popen(
            # -P: do not import from the current folder
            [
                sys.executable,
                "-P",
                "-m",
                "tunewright_hf.templates.render_worker",
                str(self._memory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # signals of a terminal or of torchrun are not for it
        )
        self._owner = os.getpid()
        self._answers = queue.Queue()
        # JSON encodes a character in up to 6 bytes, 12 outside the BMP
        reader = threading.Thread(
            target=_read_lines,
            args=(self._process.stdout, self._answers, 6 * self._output + 1000),
            daemon=True,
        )
        reader.start()
        # starting Python does not count as render time
        if self._receive(30.0) != {"ready": True}:
            self.close()
            raise WorkerError("template", "the worker that renders foreign templates did not start")

    def _ask(self, request: bytes) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        try:
            # A write larger than the pipe blocks until the worker reads: it is idle between
            # renders.
            self._process.stdin.write(request)
            self._process.stdin.flush()
            answer = self._receive(self._timeout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            died = self._process.poll() is not None
            self.close()
            what = (
                "killed its worker"
                if died
                else f"took longer than {self._timeout:g} s, and was stopped"
            )
            return {"blamed": "template", "problem": f"the template {what}"}
        return answer

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """Return an answer; None after a timeout, or if the worker has exited."""
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            return None
        try:
            answer = json.loads(line)
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None


def _read_lines(pipe: IO[bytes], answers: "queue.Queue[bytes]", limit: int) -> None:
    while line := pipe.readline(limit):
        answers.put(line)
    answers.put(b"")


# ---- in the worker -------------------------------------------------------------------------------


def _limit_memory(memory: int) -> None:
    # Windows has no resource module; macOS refuses
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _limit_time(seconds: float) -> None:
    """End a worker whose parent is gone and cannot kill it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + 2 * seconds) + 2, hard))


_compiled = lru_cache(maxsize=16)(compile_template)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    limit = request["limit"]
    written, length = [], 0
    try:
        for piece in pieces(_compiled(request["source"]), request["variables"]):
            written.append(piece)
            length += len(piece)
            if length > limit:
                return {
                    "blamed": "template",
                    "problem": f"the template writes more than {limit:,} characters",
                }
    except Exception as error:
        blamed, problem = describe(error)
        return {"blamed": blamed, "problem": problem[:2000]}
    return {"text": "".join(written)}


def main() -> None:
    _limit_memory(int(sys.argv[1]))
    answers = sys.stdout.buffer
    answers.write(b'{"ready": true}\n')
    answers.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_time(request["seconds"])
        answers.write(json.dumps(_answer(request)).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
