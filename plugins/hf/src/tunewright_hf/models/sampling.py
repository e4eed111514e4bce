"""Sampling of next tokens that uses no global random state.

Each row is drawn with numbers of its own generator: what one answer draws depends neither on other
rows or threads, nor on how much randomness was used before.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

__all__ = ["InverseCdfSampler", "sampling_processors"]


def sampling_processors(
    generators: Sequence[np.random.Generator],
    *,
    prompt_length: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    top_k: int = 0,
) -> LogitsProcessorList:
    """Return the logits processors that sample, for `generate(do_sample=False, …)`.

    They run after the processors of the generation config, such as the repetition penalty.

    generators: one per row; row i takes max_new_tokens numbers of it, one a step. prompt_length:
    tokens of the (padded) prompts. temperature: above 0. top_p: 1 is off. top_k: 0 is off.
    """
    numbers = np.stack([generator.random(max_new_tokens) for generator in generators])
    steps: list[LogitsProcessor] = [TemperatureLogitsWarper(temperature)]
    if top_k:
        steps.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        steps.append(TopPLogitsWarper(top_p))
    return LogitsProcessorList(
        [*steps, InverseCdfSampler(torch.from_numpy(numbers), prompt_length)]
    )


class InverseCdfSampler(LogitsProcessor):
    """Inverse-CDF sampling with one uniform number per row and step.

    numbers: (B, N) float64 in [0, 1), N the largest number of new tokens. prompt_length: tokens of
    the prompts. The chosen token gets the score 0, all others minus infinity: greedy decoding takes
    it.
    """

    def __init__(self, numbers: Tensor, prompt_length: int) -> None:
        self._numbers, self._prompt_length = numbers, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # (B, T), (B, V) -> (B, V)
        device = torch.device("cpu") if scores.device.type == "mps" else scores.device
        self._numbers = self._numbers.to(device)  # Apple's GPUs have no float64
        sums = scores.to(device).double().softmax(-1).cumsum(-1)  # (B, V)
        step = input_ids.shape[1] - self._prompt_length
        wanted = self._numbers[:, step, None] * sums[:, -1:]  # the last sum is 1 but for rounding
        # the first token whose sum exceeds the number: never one of probability 0
        chosen = torch.searchsorted(sums, wanted, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen.to(scores.device), 0.0)
