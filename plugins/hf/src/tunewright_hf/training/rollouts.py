"""Rollouts: completions that a model generates during training.

Sampling depends only on the seed, the step, the row and the index of the completion: not on the
batch, the rank, or the random numbers used before. So runs resume exactly, and four passes with one
prompt sample the same as one pass with four.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tunewright.types import LoadedModel, Message
from tunewright_hf.inference.rows import Row, RowSampling
from tunewright_hf.inference.scheduler import Scheduler
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.media.collation import MediaRows
from tunewright_hf.media.prompts import PromptMedia, prompt_media

__all__ = [
    "Media",
    "Rollout",
    "RolloutGenerator",
    "Sampling",
    "last_answer",
    "lengths",
]

Media = Sequence[dict[str, Any]]  # {kind, path} of each
_PREFILL_TOKENS = 16_384  # prompt tokens, padding included, in one pass


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. max_new_tokens: per completion. temperature: 0 is greedy. top_p: 1 is off.
    top_k: 0 is off."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass
class Rollout:
    """One completion of a prompt, or all turns of an episode."""

    prompt_ids: list[int]
    completion_ids: list[int]  # including its stop token, if generated
    text: str  # without stop token; of an episode, its last turn
    finished: bool  # False: truncated at max_new_tokens
    media: Media = ()  # of the prompt
    given: Sequence[tuple[int, int]] = ()  # [start, end) of completion_ids: an environment's
    messages: Sequence[Message] = ()  # of an episode, after its prompt
    reward: float | None = None  # of an environment, weighted
    #: log-probability of each token of completion_ids under the engine that sampled it, before
    #: temperature; NaN: unknown, as where an environment speaks. Empty: the model itself sampled
    logps: Sequence[float] = ()

    def row(self) -> dict[str, Any]:
        """As a row for a collator; what the model generated is trained."""
        labels = [IGNORED] * len(self.prompt_ids) + self.completion_ids
        for start, end in self.given:
            labels[len(self.prompt_ids) + start : len(self.prompt_ids) + end] = [IGNORED] * (
                end - start
            )
        return {
            "input_ids": self.prompt_ids + self.completion_ids,
            "labels": labels,
            "media": self.media,
        }

    @property
    def generated(self) -> int:
        """Tokens that the model generated."""
        return len(self.completion_ids) - sum(end - start for start, end in self.given)


class RolloutGenerator:
    """Generates completions with a model in evaluation mode.

    stop: the template's stop tokens, besides the tokenizer's EOS. media: of the model, if it takes
    any.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        stop: Sequence[str],
        sampling: Sampling,
        media: MediaRows | None = None,
    ) -> None:
        self._loaded, self.sampling, self._media = loaded, sampling, media
        known = loaded.tokenizer.get_vocab()
        names = [*stop, loaded.tokenizer.eos_token]
        self._stop_ids = frozenset(known[name] for name in names if name in known)

    def update(self, step: int) -> None:
        """Take the weights of a step. Called on all ranks before completions are generated."""

    def close(self) -> None:
        """Release what generates."""

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[Sequence[int]],
        draws: Sequence[tuple[int, ...]] = (),
        media: Sequence[Media] = (),
        limits: Sequence[int] = (),
    ) -> list[Rollout]:
        """Generate one completion per prompt. draws: seeds of each completion's random numbers;
        unused without temperature. media: of each prompt, as its row has them; empty: none. limits:
        of each completion's tokens, in place of max_new_tokens.

        Raises RowError if a medium cannot be read, RunError if it was changed.
        """
        model, sampling = self._loaded.model, self.sampling
        settings = RowSampling(sampling.temperature, sampling.top_p, sampling.top_k)
        numbers = [np.random.default_rng(draw) for draw in draws]
        randoms: list[np.random.Generator | None] = [*numbers] or [None] * len(prompts)
        own: Sequence[Media] = media or [()] * len(prompts)
        prepared = self._prompt_media(prompts, own)
        most = limits or [sampling.max_new_tokens] * len(prompts)
        rows = [
            Row(list(prompt), limit, settings, self._stop_ids, random=random, media=each)
            for prompt, limit, random, each in zip(prompts, most, randoms, prepared, strict=True)
        ]
        training = model.training
        model.eval()
        # of the weights as they are now: nothing is kept until the next call
        scheduler = Scheduler(model, slots=len(rows), prefill_tokens=_PREFILL_TOKENS)
        scheduler.add(rows)
        scheduler.run()
        model.train(training)
        return [
            self.rollout(row.prompt, row.tokens, each) for row, each in zip(rows, own, strict=True)
        ]

    def _prompt_media(
        self, prompts: Sequence[Sequence[int]], media: Sequence[Media]
    ) -> list[PromptMedia | None]:
        """Media of each prompt; completions of one prompt share them."""
        if self._media is None:
            return [None] * len(prompts)
        made: dict[Any, PromptMedia | None] = {}
        found = []
        for prompt, parts in zip(prompts, media, strict=True):
            key = (tuple(prompt), *((part["kind"], part["path"]) for part in parts))
            if key not in made:
                made[key] = prompt_media(self._media, prompt, self._media.read_all(parts))
            found.append(made[key])
        return found

    def rollout(self, prompt: list[int], written: list[int], media: Media = ()) -> Rollout:
        """Completion of these tokens, up to the first stop token."""
        end = next((place for place, token in enumerate(written) if token in self._stop_ids), None)
        ids = written if end is None else written[: end + 1]
        text = self.decode(ids if end is None else ids[:-1])
        return Rollout(prompt, ids, text, end is not None, media)

    def decode(self, ids: Sequence[int]) -> str:
        """Their text, with control tokens."""
        return self._loaded.tokenizer.decode(ids, skip_special_tokens=False)  # type: ignore[no-any-return]

    def prompt_text(self, rollout: Rollout) -> str:
        """The rendered prompt, with one placeholder for each medium."""
        if self._media:
            return self._media.prompt_text(rollout.prompt_ids, rollout.media)
        return self._loaded.tokenizer.decode(rollout.prompt_ids)  # type: ignore[no-any-return]


def lengths(written: Sequence[Rollout]) -> torch.Tensor:
    """Generated tokens of each completion (N,) in fp64, including its stop token."""
    return torch.tensor([answer.generated for answer in written], dtype=torch.float64)


def last_answer(labels: Sequence[int]) -> tuple[int, int]:
    """Start and end of the last trained span of an example; (0, 0) if there is none."""
    end = next((place for place in range(len(labels), 0, -1) if labels[place - 1] != IGNORED), 0)
    start = next((place for place in range(end, 0, -1) if labels[place - 1] == IGNORED), 0)
    return start, end
