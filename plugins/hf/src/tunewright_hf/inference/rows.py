"""Answers while they are generated."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tunewright.inference import FinishReason
from tunewright_hf.media.prompts import PromptMedia

__all__ = ["GuideState", "Row", "RowSampling", "Score"]


class GuideState(Protocol):
    """Constraint on the tokens of one answer, in the state after its tokens so far."""

    def restrict(self, logits: Any) -> None:
        """Set the logits (V,) of tokens that may not follow to minus infinity."""

    def accept(self, token: int) -> None:
        """Go on to the state after this token."""


@dataclass(frozen=True, slots=True)
class RowSampling:
    """Sampling settings of one answer, as in tunewright.inference.GenerateRequest."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()


_GREEDY = RowSampling()


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probability of a token, and of the most likely ones: (token, log-probability)."""

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


def _goes_on(row: "Row", token: int, score: Score | None) -> bool:
    return True


def _ignored(row: "Row", reason: FinishReason, error: str | None) -> None:
    return None


@dataclass(eq=False, slots=True)
class Row:
    """One answer: its prompt, what it is to be, and what there is of it.

    random: gives one uniform number for each sampled token; seed: for samplers elsewhere, which
    have numbers of their own. on_token: called with each token but
    stop ids; False ends the answer (a stop string). on_end: called once. Both are called by the
    scheduler's step. logprobs, prompt_logprobs: as in GenerateRequest. media: of the prompt.
    """

    prompt: list[int]
    max_new_tokens: int
    sampling: RowSampling = _GREEDY
    stop_ids: frozenset[int] = frozenset()
    random: np.random.Generator | None = None
    seed: int | None = None
    adapter: str | None = None
    media: PromptMedia | None = None
    guide: Any = None  # GuideState; for samplers elsewhere a text
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    on_token: Callable[["Row", int, Score | None], bool] = _goes_on
    on_end: Callable[["Row", FinishReason, str | None], None] = _ignored
    tokens: list[int] = field(default_factory=list)  # of the answer, its stop id included
    prompt_scores: list[Score] = field(default_factory=list)
    stop_score: Score | None = None  # of the stop id that ended it, with logprobs
    reason: FinishReason | None = None
    cancelled: bool = False
    unavailable: bool = False  # as in Piece; set before `end`
    memory: Any = None  # of the sampler: tokens that penalties count

    @property
    def keys(self) -> list[int]:
        """Numbers, one for each token of the prompt, that are equal for equal beginnings."""
        return self.prompt if self.media is None else self.media.keys

    @property
    def is_plain(self) -> bool:
        """Whether its next token is simply the most likely one."""
        return self.sampling == _GREEDY and self.guide is None and self.logprobs is None

    def push(self, token: int, score: Score | None) -> None:
        """Add a token."""
        self.tokens.append(token)
        if token in self.stop_ids:
            self.stop_score = score

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """Tell the end, once."""
        if self.reason is None:
            self.reason = reason
            self.on_end(self, reason, error)
