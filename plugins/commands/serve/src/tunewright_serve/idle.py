"""An engine that gives its memory back while nobody asks."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tunewright import RunError
from tunewright.inference import (
    EngineStats,
    GenerateRequest,
    InferenceEngine,
    Piece,
    PromptInput,
    Scores,
    Ticket,
    Vectors,
)

__all__ = ["IdleEngine"]


class IdleEngine(InferenceEngine):
    """Closes an engine that was not used for some seconds; the next request opens it again."""

    def __init__(self, open_engine: Callable[[], InferenceEngine], seconds: float) -> None:
        self._open_engine, self._seconds = open_engine, seconds
        engine = open_engine()
        self._engine: InferenceEngine | None = engine
        self.models, self.max_length = engine.models, engine.max_length
        self.features, self.defaults = engine.features, engine.defaults
        self._changed = threading.Condition()
        self._opening = threading.Lock()
        self._uses, self._last, self._closed = 0, time.monotonic(), False
        self._past = EngineStats()  # of engines that were closed
        self._thread = threading.Thread(target=self._watch, name="tunewright-idle", daemon=True)
        self._thread.start()

    def submit(self, request: GenerateRequest, listener: Callable[[Piece], None]) -> Ticket:
        def heard(piece: Piece) -> None:
            try:
                listener(piece)
            except BaseException:  # it is not called again
                self._release(1)
                raise
            if piece.finish_reason is not None:
                self._release(1)

        with self._used() as engine:
            with self._changed:
                self._uses += request.n
            try:
                return engine.submit(request, heard)
            except BaseException:
                self._release(request.n)
                raise

    def encode(self, request: GenerateRequest) -> list[int]:
        with self._used() as engine:
            return engine.encode(request)

    def decode(self, ids: list[int]) -> str:
        with self._used() as engine:
            return engine.decode(ids)

    def embed(self, inputs: Sequence[PromptInput], model: str | None = None) -> Vectors:
        with self._used() as engine:
            return engine.embed(inputs, model)

    def score(self, inputs: Sequence[PromptInput], model: str | None = None) -> Scores:
        with self._used() as engine:
            return engine.score(inputs, model)

    def stats(self) -> EngineStats:
        """Counts of the open engine and of earlier ones. Opens none."""
        engine, past = self._engine, self._past
        return past if engine is None else _sum(past, engine.stats())

    def close(self, seconds: float = 0.0) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with self._opening:
            if self._engine is not None:
                self._engine.close(seconds)
        self._thread.join()

    @contextmanager
    def _used(self) -> Iterator[InferenceEngine]:
        """The open engine, which is not closed meanwhile."""
        with self._changed:
            self._uses += 1
        try:
            with self._opening:  # one opens it, the others wait
                if self._closed:
                    raise RunError("the engine is closed")
                engine = self._engine = self._engine or self._open_engine()
            yield engine
        finally:
            self._release(1)

    def _release(self, uses: int) -> None:
        with self._changed:
            self._uses -= uses
            self._last = time.monotonic()
            self._changed.notify_all()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._engine and not self._uses))
                if self._closed:
                    return
                left = self._last + self._seconds - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                assert self._engine
                engine, self._engine = self._engine, None
                self._past = replace(_sum(self._past, engine.stats()), cache_tokens=0)
                engine.close()  # a request that comes now waits: two would need twice the memory
                del engine
                _release_memory()


def _release_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _sum(past: EngineStats, now: EngineStats) -> EngineStats:
    return replace(
        now,
        prompt_tokens=past.prompt_tokens + now.prompt_tokens,
        completion_tokens=past.completion_tokens + now.completion_tokens,
        cached_tokens=past.cached_tokens + now.cached_tokens,
    )
