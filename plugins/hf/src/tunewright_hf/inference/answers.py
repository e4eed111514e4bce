"""Answers of requests: checked settings, and pieces of text for the listener."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from tunewright import RowError
from tunewright.inference import (
    FinishReason,
    GenerateRequest,
    Guide,
    Piece,
    SamplingDefaults,
    TokenScore,
)
from tunewright_hf.inference.prompts import PromptEncoder
from tunewright_hf.inference.rows import Row, RowSampling, Score
from tunewright_hf.inference.text import TextStream
from tunewright_hf.inference.token_bytes import TokenBytes
from tunewright_hf.media.prompts import PromptMedia

__all__ = ["Answer", "AnswerFactory", "AnswersTicket", "GuideCompiler"]

#: (field, least, largest) of settings; None: no bound
_BOUNDS: tuple[tuple[str, float, float | None], ...] = (
    ("temperature", 0, None),
    ("top_p", 0, 1),
    ("top_k", 0, None),
    ("min_p", 0, 1),
    ("max_new_tokens", 0, None),
    ("n", 1, None),
    ("logprobs", 0, None),
    ("prompt_logprobs", 0, None),
)


class Answer:
    """One answer: its row in the scheduler, and its text so far.

    own_stops: of the request, which are told. index: among the n answers of the request.
    """

    def __init__(
        self,
        row: Row,
        text: TextStream,
        data: TokenBytes,
        listener: Callable[[Piece], None],
        ended: Callable[["Answer"], None],
        own_stops: frozenset[str | int],
        index: int,
    ) -> None:
        self.row, self._text, self._data = row, text, data
        self._listener, self._ended = listener, ended
        self._own_stops, self._index = own_stops, index
        self._scores: list[TokenScore] = []
        self._held = ""  # text of the last token, for the last piece
        self._broken = False
        row.on_token, row.on_end = self._token, self._end

    def _token(self, row: Row, token: int, score: Score | None) -> bool:
        if score is not None:
            self._scores.append(self._score(score))
        piece = self._text.push(token)
        if self._text.stopped or len(row.tokens) >= row.max_new_tokens:
            self._held = piece
            return not self._text.stopped
        if piece or self._scores:
            self._send(Piece(piece))
        return True

    def _end(self, row: Row, reason: FinishReason, error: str | None) -> None:
        text = self._held + self._text.finish()
        last = row.tokens[-1] if row.tokens else None
        stop: str | int | None = self._text.stopped
        if reason == "stop" and not stop and last in row.stop_ids:
            stop = last
        self._send(
            Piece(
                text,
                reason,
                stop=stop if stop in self._own_stops else None,
                error=error,
                ids=tuple(row.tokens),
                stop_token=self._score(row.stop_score) if row.stop_score else None,
                unavailable=row.unavailable,
            )
        )
        self._ended(self)

    def _send(self, piece: Piece) -> None:
        if self._broken:
            return
        piece.tokens, self._scores = tuple(self._scores), []
        piece.completion_tokens, piece.index = len(self.row.tokens), self._index
        if self.row.prompt_scores:
            piece.prompt = tuple(map(self._score, self.row.prompt_scores))
            self.row.prompt_scores = []
        try:
            self._listener(piece)
        except Exception:  # a listener that fails is not called again
            self._broken = self.row.cancelled = True

    def _score(self, score: Score) -> TokenScore:
        top = tuple((token, self._data.of(token), logprob) for token, logprob in score.top)
        return TokenScore(score.token, self._data.of(score.token), score.logprob, top)


class GuideCompiler(Protocol):
    """Prepares guides for whoever samples the rows."""

    def compile(self, guide: Guide) -> Any:
        """Return what `state` takes. Raises RowError if the guide cannot be used."""

    def state(self, guide: Guide, compiled: Any) -> Any:
        """Return the Row.guide of one answer."""


class AnswerFactory:
    """Makes the answers of requests. Raises RowError where one cannot be answered.

    adapters: Row.adapter of each model.
    """

    def __init__(
        self,
        prompts: PromptEncoder,
        defaults: SamplingDefaults,
        max_length: int,
        adapters: Mapping[str, str | None],
        guides: GuideCompiler,
    ) -> None:
        self._guides = guides
        self._prompts, self._defaults, self._max_length = prompts, defaults, max_length
        self._adapters, self._data = dict(adapters), TokenBytes(prompts.tokenizer)

    def make(
        self,
        request: GenerateRequest,
        prompt: list[int],
        media: PromptMedia | None,
        listener: Callable[[Piece], None],
        ended: Callable[[Answer], None],
    ) -> list[Answer]:
        """Make the `n` answers of a request."""
        self._check(request)
        template_stops = frozenset() if request.ignore_eos else self._prompts.stop_ids
        strings = () if request.ignore_eos else self._prompts.stop_strings
        room = self._max_length - len(prompt)
        wanted = room if request.max_new_tokens is None else min(room, request.max_new_tokens)
        row = Row(
            prompt,
            wanted,
            self._sampling(request),
            template_stops | frozenset(request.stop_ids),
            adapter=self.adapter(request.model),
            logprobs=request.logprobs,
            prompt_logprobs=request.prompt_logprobs,
            media=media,
        )
        guide = None if request.guide is None else self._guides.compile(request.guide)
        own: frozenset[str | int] = frozenset(request.stop) | frozenset(request.stop_ids)
        made = []
        for index in range(request.n):
            text = TextStream(self._prompts.decode, strings + request.stop)
            seed = None if request.seed is None else (request.seed + index) % 2**63
            random = _generator(request.seed, index)
            one = replace(row, random=random, seed=seed, tokens=[], prompt_scores=[])
            if request.guide is not None:
                one.guide = self._guides.state(request.guide, guide)
            made.append(Answer(one, text, self._data, listener, ended, own, index))
        return made

    def adapter(self, model: str | None) -> str | None:
        """Row.adapter of a model. Raises RowError for an unknown model."""
        if model is None:
            return next(iter(self._adapters.values()))
        if model not in self._adapters:
            known = ", ".join(self._adapters)
            raise RowError(f"there is no {model!r}", place="model", hint=f"one of {known}")
        return self._adapters[model]

    def rename(self, model: str, adapter: str) -> None:
        """Make this Row.adapter that of a model."""
        self._adapters[model] = adapter

    def _sampling(self, request: GenerateRequest) -> RowSampling:
        def setting(name: str, off: Any) -> Any:
            asked = getattr(request, name)
            default = getattr(self._defaults, name)
            return next((value for value in (asked, default) if value is not None), off)

        return RowSampling(
            temperature=setting("temperature", 0.0),
            top_p=setting("top_p", 1.0),
            top_k=setting("top_k", 0),
            min_p=setting("min_p", 0.0),
            repetition_penalty=setting("repetition_penalty", 1.0),
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            logit_bias=tuple(request.logit_bias.items()),
        )

    def _check(self, request: GenerateRequest) -> None:
        for name, least, largest in _BOUNDS:
            value = getattr(request, name)
            if value is None or (least <= value and (largest is None or value <= largest)):
                continue
            expected = f"at least {least}" if largest is None else f"from {least} to {largest}"
            raise RowError(f"is {value}, expected {expected}", place=name)
        if request.top_p == 0:
            raise RowError("is 0, expected more", place="top_p")
        if request.repetition_penalty is not None and request.repetition_penalty <= 0:
            raise RowError(
                f"is {request.repetition_penalty}, expected above 0", place="repetition_penalty"
            )
        if request.guide is not None and (request.ignore_eos or not self._prompts.stop_ids):
            raise RowError("ends an answer by a stop token, and there is none", place="guide")
        for name in ("logit_bias", "stop_ids"):
            if strange := [i for i in getattr(request, name) if not 0 <= i < self._prompts.size]:
                problem = f"{strange[0]} is no token id, expected 0 to {self._prompts.size - 1}"
                raise RowError(problem, place=name)
        if "" in request.stop:
            raise RowError("an empty string would stop at once", place="stop")


def _generator(seed: int | None, index: int) -> np.random.Generator:
    """Random numbers of one of n answers; fresh entropy without a seed."""
    if seed is None:
        return np.random.default_rng()
    entropy = seed % 2**64
    return np.random.default_rng([entropy, index] if index else entropy)


class AnswersTicket:
    """Ticket of a request whose answers an engine generates. cancel: the engine's method."""

    def __init__(
        self, cancel: Callable[[list[Answer]], None], answers: list[Answer], prompt_tokens: int
    ) -> None:
        self._cancel, self._answers, self.prompt_tokens = cancel, answers, prompt_tokens

    def cancel(self) -> None:
        self._cancel(self._answers)
