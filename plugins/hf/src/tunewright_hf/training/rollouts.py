"""Answers that a model writes to prompts while it is trained.

What is drawn depends on the seed, the step, the row and the number of the answer, and on nothing
else: not on the batch that a prompt stands in, the process, or how much randomness was used before.
So runs resume exactly, and four passes of one prompt draw what one pass of four does.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunewright.types import LoadedModel
from tunewright_hf.losses.causal_lm import replaced
from tunewright_hf.models.modules import base_model

__all__ = [
    "RolloutGenerator",
    "Sampling",
]


@dataclass(frozen=True)
class Sampling:
    """max_new_tokens: of an answer. temperature: 0 takes the likeliest token. top_p: 1 is off.
    top_k: 0 is off."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass
class Rollout:
    """One answer to one prompt."""

    prompt_ids: list[int]
    completion_ids: list[int]  # its stop token included, if it came so far
    text: str  # without stop token
    finished: bool  # False: cut off at max_new_tokens

    def row(self) -> dict[str, Any]:
        """As a row of a collator; the answer is what is trained."""
        ignored = [-100] * len(self.prompt_ids)
        return {
            "input_ids": self.prompt_ids + self.completion_ids,
            "labels": ignored + self.completion_ids,
        }


class RolloutGenerator:
    """Writes answers with a model in evaluation mode.

    stop: the template's stop tokens; the tokenizer's EOS is one too.
    """

    def __init__(self, loaded: LoadedModel, stop: Sequence[str], sampling: Sampling) -> None:
        self._loaded, self._sampling = loaded, sampling
        known = loaded.tokenizer.get_vocab()
        names = [*stop, loaded.tokenizer.eos_token]
        self._stop_ids = {known[name] for name in names if name in known}

    @torch.no_grad()
    def write(
        self, prompts: Sequence[Sequence[int]], draws: Sequence[tuple[int, ...]] = ()
    ) -> list[Rollout]:
        """One answer to each prompt. draws: numbers of which the randomness of each answer is made;
        without temperature there is none."""
        model, sampling = self._loaded.model, self._sampling
        width = max(map(len, prompts))
        pad = self._loaded.tokenizer.pad_token_id or 0
        ids = torch.tensor(
            [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        )  # (B, T)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        training = model.training
        model.eval()
        settings = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,  # _Draw decides
            eos_token_id=sorted(self._stop_ids),
            pad_token_id=pad,
            use_cache=True,
        )
        # the checkpoint's own settings would fill in what these leave open, such as a penalty on
        # repetition
        with _no_settings(model), _no_settings(base_model(model)):
            written = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=settings,
                logits_processor=self._processors(draws, width) if sampling.temperature else None,
            )
        model.train(training)
        return [
            self.rollout(list(prompt), row.tolist())
            for prompt, row in zip(prompts, written[:, width:], strict=True)
        ]

    def _processors(self, draws: Sequence[tuple[int, ...]], width: int) -> LogitsProcessorList:
        sampling, device = self._sampling, self._loaded.model.device
        numbers = np.stack(
            [np.random.default_rng(draw).random(sampling.max_new_tokens) for draw in draws]
        )
        steps: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
        if sampling.top_k:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            steps.append(TopPLogitsWarper(sampling.top_p))
        return LogitsProcessorList([*steps, _Draw(torch.from_numpy(numbers).to(device), width)])

    def rollout(self, prompt: list[int], written: list[int]) -> Rollout:
        """An answer of these tokens, up to the first stop token."""
        end = next((place for place, token in enumerate(written) if token in self._stop_ids), None)
        ids = written if end is None else written[: end + 1]
        text = self._loaded.tokenizer.decode(
            ids if end is None else ids[:-1], skip_special_tokens=False
        )
        return Rollout(prompt, ids, text, finished=end is not None)


def _no_settings(model: Any) -> AbstractContextManager[None]:
    return replaced(model, "generation_config", GenerationConfig())


class _Draw(LogitsProcessor):
    """Draws the next token of each row by a number of its own: the first at which the cumulated
    probability exceeds it.

    numbers: (B, N), in [0, 1), one for each new token. width: tokens of the prompts.
    """

    def __init__(self, numbers: Tensor, width: int) -> None:
        self._numbers, self._width = numbers, width

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        sums = scores.double().softmax(-1).cumsum(-1)  # (B, V)
        wanted = self._numbers[:, input_ids.shape[1] - self._width, None] * sums[:, -1:]
        chosen = torch.searchsorted(sums, wanted, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)
