"""Generation in evaluation, compared with the reference answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tunewright.types import TrainRequest
from tunewright_hf.distributed.sharding import check_can_gather
from tunewright_hf.media.collation import media_rows
from tunewright_hf.training.rollouts import RolloutGenerator, Sampling, last_answer
from tunewright_sft import METRICS
from tunewright_sft.similarity import Similarity

if TYPE_CHECKING:
    from tunewright_hf.training.causal_lm import CausalTrainer


class Generation:
    """Metrics of greedily generated answers. Uses no random numbers, so training is unaffected.

    stop: the template's stop tokens. Raises RecipeError if a rank cannot generate
    alone.
    """

    def __init__(self, request: TrainRequest, stop: Sequence[str], max_new_tokens: int) -> None:
        check_can_gather(request, "stage.predict_with_generate")
        self._writer = RolloutGenerator(
            request.loaded,
            stop,
            Sampling(max_new_tokens, temperature=0.0),
            media_rows(request.loaded, request.data.media_root),
        )
        self._similarity = Similarity()

    def __call__(self, trainer: "CausalTrainer", rows: Any) -> dict[str, float]:
        with trainer.sharding.gathered(trainer.model):
            return self._metrics(trainer, rows)

    def _metrics(self, trainer: "CausalTrainer", rows: Any) -> dict[str, float]:
        """Mean metrics over the examples that have an answer and something before it; empty without
        such examples."""
        starts = {number: last_answer(labels)[0] for number, labels in enumerate(rows["labels"])}
        answered = [number for number, start in starts.items() if start]
        # similar lengths together
        longest_first = sorted(answered, key=starts.__getitem__, reverse=True)
        sums = torch.zeros(len(METRICS), dtype=torch.float64)
        for own, counts in trainer.own_batches(rows, [[number] for number in longest_first]):
            places = [last_answer(row["labels"]) for row in own]
            prompts = [
                row["input_ids"][:start] for row, (start, _) in zip(own, places, strict=True)
            ]
            media = [
                trainer.media.before(row, start) if trainer.media else []
                for row, (start, _) in zip(own, places, strict=True)
            ]
            with trainer.autocast():
                written = self._writer.write(prompts, media=media)
            for row, (start, end), answer in zip(
                own if counts else (), places, written, strict=False
            ):
                wanted = self._writer.rollout(prompts[0], row["input_ids"][start:end]).text
                found = self._similarity(answer.text, wanted)
                sums += torch.tensor([found[name] for name in METRICS], dtype=torch.float64)
        means = trainer.total(sums) / max(1, len(answered))
        return dict(zip(METRICS, means.tolist(), strict=True)) if answered else {}
