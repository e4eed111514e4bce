"""Training on prompts: generate completions, score them with reward functions, train on them."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tunewright import RecipeError, RunError
from tunewright.events import Notice, Sampled
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.batching.collators import Padded
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.training.fit import fit
from tunewright_hf.training.reference import check_base, reference_mode, second_model
from tunewright_hf.training.rewards import WeightedReward, load, missing
from tunewright_hf.training.rollouts import Rollout, RolloutGenerator, Sampling
from tunewright_hf.training.stage_trainer import StageTrainer, TrainingSetup

__all__ = [
    "Prompt",
    "PromptsTrainer",
    "lengths",
    "train_on_prompts",
]

Prompt = tuple[int, dict[str, Any]]  # row index, which seeds the sampling, and the row
# stands for the step in sampling seeds during evaluation; no training gets so far
_EVALUATION = 2**32 - 1


_SAMPLES = 3  # completions shown per log
_ALIKE = (
    "step {step}: all rewards that are compared are alike since the last log: nothing is learned "
    "(look at the samples, and at what the rewards ask for)"
)


class Numbered(Dataset[Prompt]):
    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Prompt:
        return number, self.rows[number]


class PromptsTrainer(StageTrainer):
    """Trains on completions of prompts. A subclass builds batches of them, and computes the loss.
    options: RolloutOptions, and the subclass's own."""

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup)
        run, request = setup.run, setup.request
        self.options, self.seed = options, request.training.seed
        self.padded = Padded(self.tokenizer.pad_token_id or 0, media=self.media)
        self.train_rows = Numbered(request.data.train)
        #: since the last log: whether any compared rewards differ, and the first reward
        self.progress |= {"rewards_differ": False, "first_reward": None}
        self.samples: list[dict[str, Any]] = []  # last completions, for events
        self._rewards_differ = False  # of this step and rank, as the next one
        self._first_reward: float | None = None
        self._alike = False  # whether equal rewards were already reported
        self.progress["sums"] = {}  # of metrics since the last log: name → [sum, count]
        # in this step, on this rank
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.causal_loss = self.make_loss()
        sampling = Sampling(
            options.max_new_tokens, options.temperature, options.top_p, options.top_k
        )
        stop = run.plugin("template").info.stop
        self.writer = RolloutGenerator(request.loaded, stop, sampling, self.media)
        if options.beta and options.reference == "base":
            check_base(request.loaded)
        self.second = second_model(run, request, options) if options.beta else None
        # for the result of an earlier stage, which rank 0 wrote
        self.accelerator.wait_for_everyone()
        self.rewards = self._load_rewards()

    def make_loss(self) -> CausalLoss:
        return CausalLoss(self.model)

    def _load_rewards(self) -> list[WeightedReward]:
        number = self.request.number - 1
        found = []
        for index, section in enumerate(self.options.rewards):
            at = ("rewards", index, "name")
            named = any(
                self.run.from_command_line(*stage, *at)
                for stage in (("stage",), ("stages", number))
            )
            place = f"stage.rewards.{index}"
            reward = load(section, place, self.run, self.request.loaded, from_command_line=named)
            there = {"prompts", *self.request.data.train.column_names} - {"prompt_ids"}
            problem, hint = missing(reward.name, reward.needed, there)
            if problem:
                raise RecipeError(problem, place=place, hint=hint)
            found.append(reward)
        return found

    @property
    def keeps_all_logits(self) -> bool:
        return self.causal_loss.after_head is None

    # ---- answers ---------------------------------------------------------------------------------

    def answers(self, prompts: Sequence[Prompt], each: int) -> tuple[list[Rollout], Tensor]:
        """So many answers to each prompt, side by side, and their rewards (N). Raises
        StopRequested."""
        self.check_stop()
        step, size = self.step, range(each)
        groups = [row for _, row in prompts for _ in size]
        written = self._write(
            groups, [(self.seed, step, row, number) for row, _ in prompts for number in size]
        )
        rewards = self._rewards(groups, written, sampled=True)
        self._compare(rewards.view(-1, each))
        self.count("reward", rewards)
        self.count("completions/mean_length", lengths(written))
        self.count(
            "completions/clipped_ratio",
            torch.tensor([float(not answer.finished) for answer in written]),
        )
        return written, rewards

    def _write(
        self, rows: Sequence[dict[str, Any]], draws: Sequence[tuple[int, ...]]
    ) -> list[Rollout]:
        prompts, media = ([row.get(name) or [] for row in rows] for name in ("prompt_ids", "media"))
        with self.autocast(), self.evaluation_mode():
            return self.writer.write(prompts, draws, media)

    def _rewards(
        self, rows: Sequence[dict[str, Any]], written: Sequence[Rollout], *, sampled: bool = False
    ) -> Tensor:
        """Weighted sums of the rewards (N,). sampled: keep some for the next log."""
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt_ids"}
        columns["prompts"] = [self.writer.prompt_text(answer) for answer in written]
        if self.media:
            columns["media"] = [self.media.full_paths(answer.media) for answer in written]
        total = torch.zeros(len(rows), dtype=torch.float64)
        said = torch.zeros(len(rows), dtype=torch.bool)
        by_name: dict[str, list[float]] = {}
        for reward in self.rewards:
            found = torch.tensor(
                reward([answer.text for answer in written], columns), dtype=torch.float64
            )
            self.count(f"rewards/{reward.name}", found[~found.isnan()])
            by_name[reward.name] = found.tolist()
            said |= ~found.isnan()
            total += reward.weight * found.nan_to_num(0.0)
        if not said.all():
            names = ", ".join(reward.name for reward in self.rewards)
            raise RunError(
                "gives no number for some answer, nor does another", place=f"reward {names}"
            )
        if sampled:
            by_name["reward"] = total.tolist()
            self.samples = [
                {
                    "prompt": columns["prompts"][number],
                    "completion": written[number].text,
                    "rewards": {
                        name: values[number]
                        for name, values in by_name.items()
                        if not math.isnan(values[number])
                    },
                }
                for number in range(min(_SAMPLES, len(written)))
            ]
        return total

    @contextmanager
    def reference(self) -> Iterator[CausalLoss]:
        """The reference, without dropout and gradients."""
        with reference_mode(self.model, self.options.reference == "base"), self.autocast():
            yield self.second or self.causal_loss

    # ---- metrics ---------------------------------------------------------------------------------

    def count(self, name: str, values: Tensor) -> None:
        """Add values to a metric, which is reported as the mean of all values."""
        self.sums[name][0] += float(values.sum())
        self.sums[name][1] += values.numel()

    def _compare(self, rewards: Tensor) -> None:
        """Record whether rewards differ within a group (groups, completions); with one completion
        per prompt, from the first since the last log."""
        if rewards.shape[1] > 1:
            self._rewards_differ |= bool((rewards != rewards[:, :1]).any())
            return
        first = self.progress["first_reward"]
        first = self._first_reward if first is None else first
        if first is None:
            first = self._first_reward = float(rewards[0, 0])
        self._rewards_differ |= bool((rewards != first).any())

    def step_ended(self) -> None:
        so_far, names = self.progress["sums"], sorted(self.sums)
        sums = self.total(
            torch.tensor([self.sums[name] for name in names], dtype=torch.float64)
        ).tolist()
        for name, (total, count) in zip(names, sums, strict=True):
            before = so_far.get(name, [0.0, 0.0])
            so_far[name] = [before[0] + total, before[1] + count]
        self.sums.clear()
        self.progress["rewards_differ"] |= self.any_rank(self._rewards_differ)
        if self.progress["first_reward"] is None:
            self.progress["first_reward"] = self._first_reward
        self._rewards_differ, self._first_reward = False, None

    def logged(self) -> dict[str, float]:
        if self.run.rank == 0:
            for sample in self.samples:
                self.run.emit(Sampled(stage=self.stage, step=self.step, **sample))
        if "reward" in self.progress["sums"]:  # there were rollouts
            alike = not self.progress["rewards_differ"]
            if alike and not self._alike and self.run.rank == 0:
                self.run.emit(Notice(message=_ALIKE.format(step=self.step), level="warning"))
            self._alike = alike
            self.progress |= {"rewards_differ": False, "first_reward": None}
        found, self.progress["sums"] = self.progress["sums"], {}
        return {
            name: total / count if count else math.nan for name, (total, count) in found.items()
        }

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Mean reward of one completion per prompt, sampled as in training."""
        sums = torch.zeros(3, dtype=torch.float64)  # reward, tokens, answers
        of_the_step, self.sums = self.sums, defaultdict(lambda: [0.0, 0.0])
        for own, counts in self.own_batches(Numbered(rows)):
            prompts = [row for _, row in own]
            written = self._write(prompts, [(self.seed, _EVALUATION, number) for number, _ in own])
            rewards = self._rewards(prompts, written)
            if counts:
                sums += torch.tensor(
                    [float(rewards.sum()), float(lengths(written).sum()), len(own)]
                ).double()
        self.sums = of_the_step
        reward, tokens, answers = self.total(sums).tolist()
        mean = reward / answers
        return {"loss": -mean, "reward": mean, "completions/mean_length": tokens / answers}


def train_on_prompts(
    run: RunContext,
    request: TrainRequest,
    options: Any,
    stage: str,
    trainer: type[PromptsTrainer],
    repeats: int = 1,
) -> StageResult:
    """Train on prompts, and save. repeats: steps on the same completions. Raises as `fit` does;
    RecipeError if rewards, the reference, the rows or the accelerators do not fit."""
    if request.sharding:
        hint = "take it out of the recipe: processes then hold the whole model each"
        raise RecipeError(
            "a model that is spread over processes cannot write answers",
            place="accelerators",
            hint=hint,
        )
    if isinstance(request.data.train, RowStream):
        raise RecipeError(
            "prompts are not read while training goes on",
            place="dataset.streaming",
            hint="set it false",
        )
    if request.training.tokens_per_batch is not None:
        hint = "set per_device_train_batch_size, in prompts"
        raise RecipeError(
            "the answers are not written yet", place="training.tokens_per_batch", hint=hint
        )
    # prompts of any length go into one pass: completions take most of the memory
    request.training = request.training.model_copy(update={"batching": "random"})
    make = partial(trainer, options=options)
    return fit(run, request, make, stage=stage, repeats=repeats, template=run.plugin("template"))


def lengths(written: Sequence[Rollout]) -> Tensor:
    """Tokens of each completion (N,) in fp64, including its stop token."""
    return torch.tensor([len(answer.completion_ids) for answer in written], dtype=torch.float64)
