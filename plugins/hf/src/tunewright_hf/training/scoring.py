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
from tunewright_hf.predictions.examples import message_json
from tunewright_hf.templates.saved_conversation import COLUMN as CONVERSATION
from tunewright_hf.training.reward_calls import score_all
from tunewright_hf.training.rewards import WeightedReward, load, missing
from tunewright_hf.training.rollouts import Rollout, RolloutGenerator

_OWN = ("prompt_ids", CONVERSATION)  # columns that rewards do not get
_SAMPLES = 3  # completions shown per log
_LATE = (
    "reward {name} gave no numbers within its time limit of {seconds:g} seconds: counted as None"
)


def load_rewards(run: RunContext, request: TrainRequest, sections: Any) -> list[WeightedReward]:
    """The rewards of a stage, checked against its rows. Raises RecipeError."""
    number, found = request.number - 1, []
    for index, section in enumerate(sections):
        named = run.from_command_line("stages", number, "rewards", index, "name")
        place = f"stage.rewards.{index}"
        reward = load(section, place, run, request.loaded, from_command_line=named)
        there = {"prompts", *request.data.train.column_names} - {*_OWN}
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
        columns = {name: [row[name] for row in rows] for name in rows[0] if name not in _OWN}
        columns["prompts"] = [self.writer.prompt_text(answer) for answer in written]
        if self.media:
            columns["media"] = [self.media.full_paths(answer.media) for answer in written]
        if any(answer.messages for answer in written):
            columns["messages"] = [list(map(message_json, answer.messages)) for answer in written]
        scores, late = score_all(self.rewards, [answer.text for answer in written], columns)
        for reward in late:
            message = _LATE.format(name=reward.name, seconds=reward.time_limit)
            self.run.emit(Notice(message=message, level="warning"))
        by_name = {reward.name: values for reward, values in zip(self.rewards, scores, strict=True)}
        weights = [reward.weight for reward in self.rewards]
        if any(answer.reward is not None for answer in written):  # it has its weight already
            by_name["environment"] = [
                math.nan if answer.reward is None else answer.reward for answer in written
            ]
            weights.append(1.0)
        total = self._sum(by_name, weights, len(written))
        for name, term in (shaping or {}).items():
            self.count(f"rewards/{name}", term)
            by_name[name] = term.tolist()
            total += term
        if shaping is not None:
            by_name["reward"] = total.tolist()
            self.samples = [
                _sample(number, columns["prompts"][number], self._shown(answer), by_name)
                for number, answer in enumerate(written[:_SAMPLES])
            ]
        return total

    def _sum(
        self, by_name: Mapping[str, list[float]], weights: Sequence[float], count: int
    ) -> Tensor:
        """Weighted sums (N,) of rewards. Raises RunError where none gives a number."""
        total = torch.zeros(count, dtype=torch.float64)
        said = torch.zeros(count, dtype=torch.bool)
        for (name, values), weight in zip(by_name.items(), weights, strict=True):
            found = torch.tensor(values, dtype=torch.float64)
            self.count(f"rewards/{name}", found[~found.isnan()])
            said |= ~found.isnan()
            total += weight * found.nan_to_num(0.0)
        if not said.all():
            problem = "gives no number for some answer, nor does another"
            raise RunError(problem, place=f"reward {', '.join(by_name) or 'environment'}")
        return total

    def _shown(self, answer: Rollout) -> str:
        """The whole completion, with what an environment said in it."""
        return self.writer.decode(answer.completion_ids) if answer.given else answer.text


def _sample(
    number: int, prompt: str, completion: str, by_name: Mapping[str, list[float]]
) -> dict[str, Any]:
    """Fields of an event `Sampled`."""
    rewards = {name: values[number] for name, values in by_name.items()}
    shown = {name: value for name, value in rewards.items() if not math.isnan(value)}
    return {"prompt": prompt, "completion": completion, "rewards": shown}
