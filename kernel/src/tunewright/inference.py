"""Inference: an open engine, the requests it takes and the pieces it answers with.

`run.call("engine", "open_engine", EngineRequest())` loads the model and returns an
`InferenceEngine`, which answers many requests at once:

    with run.call("engine", "open_engine", EngineRequest()) as engine:
        for piece in answers(engine, GenerateRequest(Conversation([Message("user", "Hi")]))):
            print(piece.text, end="")
"""

import queue
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from tunewright.errors import RowError, RunError
from tunewright.rows import Conversation
from tunewright.types import StageResult

__all__ = [
    "Busy",
    "EngineRequest",
    "EngineStats",
    "Feature",
    "FinishReason",
    "GenerateRequest",
    "Grammar",
    "Guide",
    "InferenceEngine",
    "JsonSchema",
    "Piece",
    "PromptInput",
    "Regex",
    "SamplingDefaults",
    "Scores",
    "Ticket",
    "TokenScore",
    "TooLong",
    "Vectors",
    "answers",
]

#: what an engine can do besides generating text; audio, images, videos: in conversations
Feature = Literal[
    "adapters",
    "audio",
    "embeddings",
    "generation",
    "guides",
    "images",
    "logprobs",
    "prompt_logprobs",
    "scores",
    "videos",
]
FinishReason = Literal["stop", "length", "cancelled", "error"]
#: a conversation, which the template renders; or token ids; or text that is encoded as it stands
PromptInput = Conversation | list[int] | str


class Busy(RunError):
    """As many requests wait as may wait: try again later."""


class TooLong(RowError):
    """A prompt leaves no room for an answer."""


@dataclass(slots=True)
class EngineRequest:
    """Settings of an engine that is opened."""

    head: Literal["causal_lm", "score"] = "causal_lm"  # score: a reward model, for its scores
    slots: int = 32  # answers that are generated at once
    max_waiting: int = 256  # answers that wait for a slot; with more, submit raises Busy
    max_length: int | None = None  # tokens of a prompt and its answer; None: the model's own
    cache_tokens: int | None = None  # tokens in the key-value cache at once; None: no limit
    adapters: dict[str, Path] = field(default_factory=dict)  # name → folder
    address: str | None = None  # of a server that runs already, for remote engines
    #: other weights of the run come by `InferenceEngine.update`, while it is trained
    updates: bool = False
    #: take SamplingDefaults from the checkpoint's generation_config.json
    sampling_defaults: bool = True


@dataclass(slots=True)
class SamplingDefaults:
    """Sampling settings of requests that give none. None: the checkpoint gives none either; then
    the temperature is 0 and the others are off."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def given(self) -> dict[str, float]:
        """Settings that the checkpoint gives, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is JSON that fits a schema, between two fixed texts."""

    schema: dict[str, Any]
    before: str = ""  # such as the opening tag of a tool call
    after: str = ""


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches a regular expression."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """The answer is a sentence of a grammar in GBNF; its first rule is `root`."""

    text: str


Guide = JsonSchema | Regex | Grammar


@dataclass(slots=True)
class GenerateRequest:
    """One prompt, and how its answers are generated. Settings that are None: SamplingDefaults."""

    conversation: Conversation = field(default_factory=lambda: Conversation([]))
    #: None: up to InferenceEngine.max_length, where every answer ends
    max_new_tokens: int | None = 512
    temperature: float | None = None  # 0: greedy
    top_p: float | None = None  # 1: off
    top_k: int | None = None  # 0: off
    repetition_penalty: float | None = None  # 1: off; of tokens of prompt and answer
    seed: int | None = None
    stop: tuple[str, ...] = ()  # strings, besides the template's own stop tokens
    min_p: float | None = None  # 0: off; relative to the most likely token
    presence_penalty: float = 0.0  # subtracted from the logits of tokens of the answer so far
    frequency_penalty: float = 0.0  # the same, times how often the token occurs there
    logit_bias: dict[int, float] = field(default_factory=dict)  # token id → added to its logit
    stop_ids: tuple[int, ...] = ()  # token ids, besides the template's own stop tokens
    ignore_eos: bool = False  # the template's and the tokenizer's stop tokens do not end it
    n: int = 1  # answers
    logprobs: int | None = None  # of each token, and of so many of the most likely; None: none
    prompt_logprobs: int | None = None  # the same, of the prompt's tokens
    guide: Guide | None = None
    model: str | None = None  # one of InferenceEngine.models; None: the first
    #: in place of the conversation: token ids, or text that is encoded as it stands. Ids may be
    #: those of the conversation, as `encode` returns them; then its media belong to them
    prompt: list[int] | str | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token with its log-probability under the model, before temperature and penalties."""

    id: int
    data: bytes  # of its text; may be part of a character
    logprob: float | None  # None: a prompt's first token
    #: the most likely tokens here, most likely first: (id, data, logprob)
    top: tuple[tuple[int, bytes, float], ...] = ()


@dataclass(slots=True)
class Piece:
    """Part of an answer. An answer has exactly one piece with a finish_reason: its last."""

    text: str  # final: no incomplete character, no beginning of a stop string
    finish_reason: FinishReason | None = None
    tokens: tuple[TokenScore, ...] = ()  # only with logprobs; the stop token is left out
    completion_tokens: int = 0  # generated so far, the stop token included
    stop: str | int | None = None  # the stop string or stop id of the request that ended it
    error: str | None = None  # with finish_reason "error"
    index: int = 0  # of the answer, below GenerateRequest.n
    prompt: tuple[TokenScore, ...] = ()  # only with prompt_logprobs, in an answer's first piece
    ids: tuple[int, ...] = ()  # in a last piece: of the whole answer, the stop token included
    stop_token: TokenScore | None = None  # only with logprobs, in a last piece: what ended it
    unavailable: bool = False  # with "error": the server that answers was lost; ask again later


@dataclass(frozen=True, slots=True)
class EngineStats:
    running: int = 0  # answers that hold a slot
    waiting: int = 0  # answers that wait for one
    cache_tokens: int = 0  # positions of the key-value cache in use, padding included
    prompt_tokens: int = 0  # of all requests so far
    completion_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens that were not computed, by reuse of a shared prefix


@dataclass(slots=True)
class Vectors:
    values: list[list[float]]  # one for each input, of norm 1
    prompt_tokens: list[int]


@dataclass(slots=True)
class Scores:
    values: list[float]  # one for each input
    prompt_tokens: list[int]


class Ticket(Protocol):
    """A request that the engine has taken."""

    prompt_tokens: int

    def cancel(self) -> None:
        """End its answers within one step. Each still gets a last piece, with the finish_reason
        "cancelled". May be called again, and after the end."""


class InferenceEngine:
    """A loaded model that answers. All methods may be called from any thread."""

    models: tuple[str, ...]  #: the model's name, then those of the adapters
    max_length: int  #: tokens of a prompt and its answer
    features: frozenset[Feature]
    defaults: SamplingDefaults

    def submit(self, request: GenerateRequest, listener: Callable[[Piece], None]) -> Ticket:
        """Take a request, and call the listener with the pieces of its answers.

        The prompt is rendered, encoded and checked before submit returns. The listener is called
        from a thread of the engine, for each answer at most once a step; it must neither wait nor
        raise: an answer whose listener raises is cancelled.

        Raises RowError if the request cannot be answered (place: its field), Busy if too many
        requests wait, RunError after close.
        """
        raise NotImplementedError

    def encode(self, request: GenerateRequest) -> list[int]:
        """Return the token ids of a request's prompt. Raises RowError as submit does."""
        raise NotImplementedError

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, special tokens included."""
        raise NotImplementedError

    def count(self, request: GenerateRequest) -> int:
        """Return the number of tokens of a request's prompt. Raises RowError as submit does."""
        return len(self.encode(request))

    def stats(self) -> EngineStats:
        """Return what the engine does now, and has done."""
        raise NotImplementedError

    def embed(self, inputs: Sequence[PromptInput], model: str | None = None) -> Vectors:
        """Return one vector for each input: the mean of its tokens' last hidden states, of norm 1.
        Waits. Raises RowError, and RunError without the feature "embeddings"."""
        raise RunError("this engine computes no embeddings")

    def score(self, inputs: Sequence[PromptInput], model: str | None = None) -> Scores:
        """Return the reward model's score of each input. Waits. Raises RowError, and RunError
        without the feature "scores"."""
        raise RunError("this engine's model is no reward model")

    def update(self, trained: StageResult, send: bool = True) -> None:
        """Answer with other weights of the run from now on; no request may be under way. Waits
        until the files are read. send: False where another process tells the server. Raises
        RunError if the engine was not opened for updates, or cannot load them."""
        raise RunError("this engine takes no other weights", place="engine")

    def close(self, seconds: float = 0.0) -> None:
        """Take no more requests, let answers go on for so long, cancel the others, and release the
        model. May be called again."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def answers(engine: InferenceEngine, request: GenerateRequest) -> Generator[Piece]:
    """Submit a request and yield the pieces of its answers, until the last of each.

    Closing the iterator cancels the request. Raises what submit raises, and RunError if the engine
    fails.
    """
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    ticket = engine.submit(request, pieces.put)
    open_answers = request.n
    try:
        while open_answers:
            piece = pieces.get()
            if piece.finish_reason == "error":
                raise RunError(f"the engine failed: {piece.error}")
            open_answers -= piece.finish_reason is not None
            yield piece
    finally:
        ticket.cancel()
