"""Test double of an open engine: it answers what a script says, without a model.

    engine = ScriptedEngine("Hello there.", ["<think>", "hm", "</think>", "Paris."])
    [piece.text for piece in answers(engine, request)]  # "Hello", " there.", ""

The answers to requests follow each other in the script; the last one is repeated for ever. An
answer is a text, which comes word by word, or a list of pieces; an exception among them makes it
end in an error. A function gives the answer to each request (with n, it is called n times).
"""

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tunewright.errors import RowError, RunError
from tunewright.inference import (
    Busy,
    EngineStats,
    Feature,
    GenerateRequest,
    InferenceEngine,
    Piece,
    PromptInput,
    SamplingDefaults,
    Scores,
    TokenScore,
    TooLong,
    Vectors,
)
from tunewright.types import Conversation

Answer = str | Sequence[str | Exception]
_ALL: tuple[Feature, ...] = (
    "adapters",
    "embeddings",
    "generation",
    "guides",
    "logprobs",
    "prompt_logprobs",
    "scores",
)


class ScriptedEngine(InferenceEngine):
    """Implements InferenceEngine. Every piece counts as one token; a prompt has as many tokens as
    its text has bytes.

    script: the answers, or one function of the request. by_hand: nothing is sent until `step` is
    called, which sends the next piece of each running answer; else a thread calls it. slots and
    max_waiting: as in EngineRequest. asked: all requests. cancelled: how many answers were.
    """

    def __init__(
        self,
        *script: Answer | Callable[[GenerateRequest], Answer],
        models: tuple[str, ...] = ("scripted",),
        features: Sequence[Feature] = _ALL,
        max_length: int = 100_000,
        slots: int = 32,
        max_waiting: int = 256,
        defaults: SamplingDefaults | None = None,
        by_hand: bool = False,
    ) -> None:
        self.models, self.features, self.max_length = models, frozenset(features), max_length
        self.defaults = defaults or SamplingDefaults()
        self.asked: list[GenerateRequest] = []
        self.cancelled = self.prompt_tokens = self.completion_tokens = 0
        self.closed = False
        self._script, self._slots, self._max_waiting = list(script), slots, max_waiting
        self._answers: list[_Running] = []
        self._lock, self._work = threading.RLock(), threading.Event()
        if not by_hand:
            threading.Thread(target=self._run, daemon=True).start()

    def submit(self, request: GenerateRequest, listener: Callable[[Piece], None]) -> "_Ticket":
        with self._lock:
            if self.closed:
                raise RunError("the engine is closed")
            if request.model not in (None, *self.models):
                raise RowError(f"there is no model {request.model!r}", place="model")
            ids = self.encode(request)
            if len(self._answers) >= self._slots + self._max_waiting:
                raise Busy("too many requests wait")
            self.asked.append(request)
            self.prompt_tokens += len(ids)
            made = [
                _Running(request, number, self._next(request), listener, ids)
                for number in range(request.n)
            ]
            self._answers += made
        self._work.set()
        return _Ticket(self, made, len(ids))

    def encode(self, request: GenerateRequest) -> list[int]:
        if request.prompt is None and not request.conversation.messages:
            raise RowError("there are no messages", place="messages")
        ids = _encoded(request.conversation if request.prompt is None else request.prompt)
        if any(not 0 <= token < 256 for token in ids):
            raise RowError("a token id is not below 256", place="prompt")
        if len(ids) >= self.max_length:
            raise TooLong(f"has {len(ids)} tokens, above {self.max_length - 1}", place="prompt")
        return ids

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def stats(self) -> EngineStats:
        with self._lock:
            running = min(len(self._answers), self._slots)
            waiting = len(self._answers) - running
        return EngineStats(
            running, waiting, 0, self.prompt_tokens, self.completion_tokens, cached_tokens=0
        )

    def embed(self, inputs: Sequence[PromptInput], model: str | None = None) -> Vectors:
        found = [_encoded(each) for each in inputs]
        return Vectors(
            [[0.6, 0.8] if sum(i) % 2 else [0.8, 0.6] for i in found], [*map(len, found)]
        )

    def score(self, inputs: Sequence[PromptInput], model: str | None = None) -> Scores:
        found = [_encoded(each) for each in inputs]
        return Scores([float(len(ids)) for ids in found], [len(ids) for ids in found])

    def close(self, seconds: float = 0.0) -> None:
        with self._lock:
            self.closed = True
            for answer in self._answers:
                answer.cancelled = True
            self.step()
        self._work.set()

    def step(self) -> bool:
        """Send the next piece of each running answer. Returns whether there was any."""
        with self._lock:
            running = self._answers[: self._slots]
            for answer in [*running, *(a for a in self._answers[self._slots :] if a.cancelled)]:
                piece = answer.step()
                self.completion_tokens += bool(piece.text)
                self.cancelled += piece.finish_reason == "cancelled"
                if piece.finish_reason is not None:
                    self._answers.remove(answer)
                answer.listener(piece)
            return bool(running)

    def _next(self, request: GenerateRequest) -> Answer:
        first = self._script[0] if len(self._script) == 1 else self._script.pop(0)
        return first(request) if callable(first) else first

    def _run(self) -> None:
        while not self.closed:
            if not self.step():
                self._work.wait(0.05)
                self._work.clear()


class _Running:
    """An answer that is not finished."""

    def __init__(
        self,
        request: GenerateRequest,
        index: int,
        answer: Answer,
        listener: Callable[[Piece], None],
        prompt: list[int],
    ) -> None:
        self.request, self.index, self.listener, self.prompt = request, index, listener, prompt
        self.left: list[Any] = (
            re.findall(r"\s*\S+|\s+$", answer) if isinstance(answer, str) else [*answer]
        )
        self.said, self.count, self.cancelled = "", 0, False

    def step(self) -> Piece:
        """The next piece; the last one has no text, unless a stop string ends the answer."""
        piece = Piece("", index=self.index)
        limit = self.request.max_new_tokens
        if self.request.prompt_logprobs is not None and not self.count:
            piece.prompt = tuple(
                TokenScore(i, bytes([i]), -1.0 if at else None) for at, i in enumerate(self.prompt)
            )
        if self.cancelled:
            piece.finish_reason = "cancelled"
        elif limit is not None and self.count >= limit:
            piece.finish_reason = "length"
        elif not self.left:
            piece.finish_reason = "stop"
        elif isinstance(self.left[0], Exception):
            piece.finish_reason, piece.error = "error", str(self.left[0])
        else:
            self._say(piece)
        piece.completion_tokens = self.count
        return piece

    def _say(self, piece: Piece) -> None:
        piece.text, self.count = self.left.pop(0), self.count + 1
        said = self.said + piece.text
        ends = [(said.index(stop), stop) for stop in self.request.stop if stop in said]
        if ends:
            end, piece.stop = min(ends)
            piece.text, piece.finish_reason = said[len(self.said) : end], "stop"
        self.said = said
        if self.request.logprobs is not None:
            data = piece.text.encode()
            top = [(self.count, data, -0.5), (0, b"other", -2.0)]
            top += [(number, b"%d" % number, -float(number)) for number in range(3, 21)]
            piece.tokens = (
                TokenScore(self.count, data, -0.5, tuple(top[: self.request.logprobs])),
            )


class _Ticket:
    def __init__(self, engine: ScriptedEngine, answers: list[_Running], prompt_tokens: int) -> None:
        self._engine, self._answers, self.prompt_tokens = engine, answers, prompt_tokens

    def cancel(self) -> None:
        for answer in self._answers:
            answer.cancelled = True
        self._engine._work.set()


def _encoded(asked: PromptInput) -> list[int]:
    """Bytes of the text, or the ids."""
    if isinstance(asked, Conversation):
        asked = "\n".join(f"{m.role}: {m.content}" for m in asked.messages)
    return list(asked.encode()) if isinstance(asked, str) else asked
