"""The engines of all chats: started when they are needed, ended when nobody asks."""

import threading
import time
from pathlib import Path

from tunewright_web.chat.engine import Engine
from tunewright_web.errors import WebError

__all__ = ["Pool"]

_MOST = 2  # models that are loaded at once: two answer side by side
_IDLE = 15 * 60  # seconds without a request, after which a model is unloaded


class Pool:
    """Engines by the arguments that they were started with."""

    def __init__(self, root: Path, folder: Path, *, idle: float = _IDLE) -> None:
        self._root, self._folder, self._idle = root, folder, idle
        self._engines: dict[tuple[str, ...], Engine] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="tunewright-chats", daemon=True).start()

    def find(self, arguments: list[str]) -> Engine | None:
        """The engine that was started last with these arguments, whatever its state."""
        return self._engines.get(tuple(arguments))

    def start(self, arguments: list[str]) -> Engine:
        """The engine for these arguments; a new one, if there is none or it has ended.

        The one that was used longest ago makes room. Raises WebError if all are answering.
        """
        with self._lock:
            found = self._engines.get(tuple(arguments))
            if found is not None and found.state in ("loading", "ready"):
                found.used = time.monotonic()
                return found
            alive = [each for each in self._engines.values() if each.state in ("loading", "ready")]
            for each in sorted(alive, key=lambda engine: engine.used)[: len(alive) - _MOST + 1]:
                if each.answering:
                    problem = f"{_MOST} models are answering, as many as may be loaded at once"
                    raise WebError(problem, "wait for a reply, or stop it", status=429)
                each.end()
            made = Engine(arguments, cwd=self._root, folder=self._folder)
            self._engines[tuple(arguments)] = made
            return made

    def end(self, arguments: list[str]) -> None:
        """Unload a model."""
        with self._lock:
            found = self._engines.get(tuple(arguments))
            if found is not None and not found.answering:
                found.end()

    def _watch(self) -> None:
        while True:
            time.sleep(min(5.0, self._idle / 4))
            with self._lock:
                for each in self._engines.values():
                    is_idle = not each.answering and time.monotonic() - each.used > self._idle
                    if each.state == "ready" and is_idle:
                        each.end()
