"""Weighted rewards of rollouts, with metrics and samples for the log."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tunewright import RecipeError, RunError
from tunewright.events import Notice
from tunewright.types import RunContext, TrainRequest
from tunewright_hf.media.collation import MediaRows
from tunewright_hf.training.reward_calls import score_all
from tunewright_hf.training.rewards import WeightedReward, load, missing
from tunewright_hf.training.rollouts import Rollout, RolloutGenerator

_SAMPLES = 3  # completions shown per log
_LATE = (
    "reward {name} gave no numbers within its time limit of {seconds:g} seconds: counted as None"
)


def load_rewards(run: RunContext, request: TrainRequest, sections: Any) -> list[WeightedReward]:
    """The rewards of a stage, checked against its rows. Raises RecipeError."""
    number, found = request.number - 1, []
    for index, section in enumerate(sections):
        at = ("rewards", index, "name")
        named = any(
            run.from_command_line(*stage, *at) for stage in (("stage",), ("stages", number))
        )
        place = f"stage.rewards.{index}"
        reward = load(section, place, run, request.loaded, from_command_line=named)
        there = {"prompts", *request.data.train.column_names} - {"prompt_ids"}
        problem, hint = missing(reward.name, reward.needed, there)
        if problem:
            raise RecipeError(problem, place=place, hint=hint)
        found.append(reward)
    return found


@dataclass
class Scorer:
    """Scores rollouts. count: adds values to a metric. media: of the model, if it takes any."""

    run: RunContext
    rewards: list[WeightedReward]
    writer: RolloutGenerator
    count: Callable[[str, Tensor], None]
    media: MediaRows | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)  # the last ones, for events

    def __call__(
        self,
        rows: Sequence[dict[str, Any]],
        written: Sequence[Rollout],
        shaping: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Weighted sums of the rewards (N,) in fp64. shaping: further terms (N,) by name; given in
        training, of which some samples are kept."""
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt_ids"}
        columns["prompts"] = [self.writer.prompt_text(answer) for answer in written]
        if self.media:
            columns["media"] = [self.media.full_paths(answer.media) for answer in written]
        scores, late = score_all(self.rewards, [answer.text for answer in written], columns)
        for reward in late:
            message = _LATE.format(name=reward.name, seconds=reward.time_limit)
            self.run.emit(Notice(message=message, level="warning"))
        total = torch.zeros(len(rows), dtype=torch.float64)
        said = torch.zeros(len(rows), dtype=torch.bool)
        by_name: dict[str, list[float]] = {}
        for reward, values in zip(self.rewards, scores, strict=True):
            found = torch.tensor(values, dtype=torch.float64)
            self.count(f"rewards/{reward.name}", found[~found.isnan()])
            by_name[reward.name] = values
            said |= ~found.isnan()
            total += reward.weight * found.nan_to_num(0.0)
        if not said.all():
            names = ", ".join(reward.name for reward in self.rewards)
            raise RunError(
                "gives no number for some answer, nor does another", place=f"reward {names}"
            )
        for name, term in (shaping or {}).items():
            self.count(f"rewards/{name}", term)
            by_name[name] = term.tolist()
            total += term
        if shaping is not None:
            by_name["reward"] = total.tolist()
            self.samples = [
                _sample(number, columns["prompts"][number], answer.text, by_name)
                for number, answer in enumerate(written[:_SAMPLES])
            ]
        return total


def _sample(
    number: int, prompt: str, completion: str, by_name: Mapping[str, list[float]]
) -> dict[str, Any]:
    """Fields of an event `Sampled`."""
    rewards = {name: values[number] for name, values in by_name.items()}
    shown = {name: value for name, value in rewards.items() if not math.isnan(value)}
    return {"prompt": prompt, "completion": completion, "rewards": shown}
