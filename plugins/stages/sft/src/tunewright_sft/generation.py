"""What a model answers while it is evaluated, held against what the data says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tunewright import RecipeError
from tunewright.types import TrainRequest
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.training.rollouts import RolloutGenerator, Sampling
from tunewright_sft.similarity import METRICS, Similarity

if TYPE_CHECKING:
    from tunewright_hf.training.causal_lm import CausalTrainer


class Generation:
    """Metrics of the answers that a model writes greedily. It draws nothing, so that training goes
    on as without it.

    stop: the template's stop tokens. Raises RecipeError where the model is spread over processes.
    """

    def __init__(self, request: TrainRequest, stop: Sequence[str], max_new_tokens: int) -> None:
        if request.sharding:
            place, hint = (
                "stage.predict_with_generate",
                "take the accelerator out of the recipe, or this",
            )
            raise RecipeError(
                "a model that is spread over processes cannot write answers", place=place, hint=hint
            )
        self._writer = RolloutGenerator(
            request.loaded, stop, Sampling(max_new_tokens, temperature=0.0)
        )
        self._similarity = Similarity()

    def __call__(self, trainer: "CausalTrainer", rows: Any) -> dict[str, float]:
        """Means over the rows that have an answer, and something before it; nothing where there are
        none."""
        starts = {number: last_answer(labels)[0] for number, labels in enumerate(rows["labels"])}
        answered = [number for number, start in starts.items() if start]
        longest_first = sorted(
            answered, key=starts.__getitem__, reverse=True
        )  # those of like length side by side
        sums = torch.zeros(len(METRICS), dtype=torch.float64)
        for own, counts in trainer.own_batches(rows, [[number] for number in longest_first]):
            places = [last_answer(row["labels"]) for row in own]
            prompts = [
                row["input_ids"][:start] for row, (start, _) in zip(own, places, strict=True)
            ]
            with trainer.autocast():
                written = self._writer.write(prompts)
            for row, (start, end), answer in zip(
                own if counts else (), places, written, strict=False
            ):
                wanted = self._writer.rollout(prompts[0], row["input_ids"][start:end]).text
                found = self._similarity(answer.text, wanted)
                sums += torch.tensor([found[name] for name in METRICS], dtype=torch.float64)
        means = trainer.total(sums) / max(1, len(answered))
        return dict(zip(METRICS, means.tolist(), strict=True)) if answered else {}


def last_answer(labels: Sequence[int]) -> tuple[int, int]:
    """Where the last trained span of a row begins and ends; (0, 0) where there is none."""
    end = next((place for place in range(len(labels), 0, -1) if labels[place - 1] != IGNORED), 0)
    start = next((place for place in range(end, 0, -1) if labels[place - 1] == IGNORED), 0)
    return start, end
