"""Training on prompts: generate completions, score them with reward functions, train on them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tunewright import RecipeError
from tunewright.events import Notice, Sampled
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.batching import collators
from tunewright_hf.batching.collators import Padded
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.losses.causal_lm import CausalLoss, shift
from tunewright_hf.training.fit import fit
from tunewright_hf.training.reference import check_base, reference_mode, second_model
from tunewright_hf.training.rollouts import Rollout, RolloutGenerator, Sampling, lengths
from tunewright_hf.training.scoring import Scorer, load_rewards
from tunewright_hf.training.stage_trainer import Batch, StageTrainer, TrainingSetup, moved

__all__ = ["Numbered", "Prompt", "PromptsTrainer", "check_can_generate", "train_on_prompts"]

Prompt = tuple[int, dict[str, Any]]  # row index, which seeds the sampling, and the row
# stands for the step in sampling seeds during evaluation; no training gets so far
_EVALUATION = 2**32 - 1

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
    """Trains on completions of prompts. A subclass makes rollouts of them, and computes the loss.
    options: RolloutOptions, and the subclass's own.

    A rollout is a batch for each pass of a step, on the device: those of `batch_of`, and whatever
    the loss needs besides. Each is trained on for `steps_per_rollout` steps, and checkpoints may be
    written between them.
    """

    steps_per_rollout = 1

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup)
        run, request = setup.run, setup.request
        self.options, self.seed = options, request.training.seed
        self.padded = Padded(self.tokenizer.pad_token_id or 0, media=self.media)
        self.train_rows = Numbered(request.data.train)
        #: since the last log: whether any compared rewards differ, and the first reward
        self.progress |= {"rewards_differ": False, "first_reward": None}
        self.rollout: list[Batch] = []
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
        self.rewards = load_rewards(run, request, options.rewards)
        self.scorer = Scorer(run, self.rewards, self.writer, self.count, self.media)

    def make_loss(self) -> CausalLoss:
        return CausalLoss(self.model)

    @property
    def keeps_all_logits(self) -> bool:
        return self.causal_loss.after_head is None

    # ---- rollouts --------------------------------------------------------------------------------

    def make_rollout(self, batches: list[list[Prompt]]) -> list[Batch]:
        """A rollout for the prompts of one step. Called without gradients."""
        raise NotImplementedError

    def prepare_step(self, batches: list[list[Prompt]]) -> tuple[list[Batch], float]:
        # a run that goes on with another number of ranks has no rollout
        if not self.rollout or self.step % self.steps_per_rollout == 0:
            self.writer.update(self.step)
            with torch.no_grad(), self.evaluation_mode():
                self.rollout = self.make_rollout(batches)
        counts = [[batch["parts"], collators.tokens(batch)] for batch in self.rollout]
        weight, tokens = self.total(torch.tensor(counts).double().sum(0)).tolist()
        self.progress["tokens"] += int(tokens)
        return [dict(batch) for batch in self.rollout], weight

    def batch_of(self, written: Sequence[Rollout], parts: float = 0.0) -> Batch:
        """Padded batch of rollouts on the device, with their `rows`, and `known` (B, T): 1 at the
        positions before tokens of completions. parts: its share of the mean over a step."""
        rows = [answer.row() for answer in written]
        batch = moved(self.padded(rows), self.device)
        return batch | {"rows": rows, "known": shift(batch["labels"], None)[1], "parts": parts}

    def rank_state(self) -> dict[str, Any]:
        if self.step % self.steps_per_rollout == 0:
            return {}
        padded = ("inputs", "labels")  # made again from the rows
        return {
            "rollout": [
                {name: each for name, each in batch.items() if name not in padded}
                for batch in self.rollout
            ]
        }

    def load_rank_state(self, state: dict[str, Any]) -> None:
        self.rollout = [
            moved(self.padded(batch["rows"]) | batch, self.device) for batch in state["rollout"]
        ]

    def answers(
        self, prompts: Sequence[Prompt], each: int, seeds: Sequence[tuple[int, ...]] | None = None
    ) -> tuple[list[Rollout], Tensor]:
        """So many answers to each prompt, side by side, and their rewards (N). seeds: of each
        prompt, besides the step, the row and the answer's number, which seed the sampling too."""
        groups = [row for _, row in prompts for _ in range(each)]
        draws = [
            (self.seed, self.step, row, number, *more)
            for (row, _), more in zip(prompts, seeds or [()] * len(prompts), strict=True)
            for number in range(each)
        ]
        written = self.write(groups, draws)
        rewards = self.scorer(groups, written, self.shaping(written))
        self._compare(rewards.view(-1, each))
        self.count("reward", rewards)
        self.count("completions/mean_length", lengths(written))
        self.count(
            "completions/clipped_ratio",
            torch.tensor([float(not answer.finished) for answer in written]),
        )
        return written, rewards

    def shaping(self, written: Sequence[Rollout]) -> dict[str, Tensor]:
        """Terms (N,) by name that are added to the rewards in training."""
        return {}

    def write(
        self, rows: Sequence[dict[str, Any]], draws: Sequence[tuple[int, ...]]
    ) -> list[Rollout]:
        """A completion for each row. draws: seeds of their random numbers."""
        prompts, media = ([row.get(name) or [] for row in rows] for name in ("prompt_ids", "media"))
        with self.autocast(), self.evaluation_mode():
            return self.writer.write(prompts, draws, media)

    def reference_logps(self, batch: Batch) -> Tensor:
        """Log-probabilities of a batch's labels under the reference (B, T), without gradients."""
        with self.reference() as reference:
            return reference.logps(reference.model, batch["inputs"], batch["labels"])[0]

    def normalize_advantages(self, rollout: list[Batch]) -> None:
        """Normalize `advantages` (B, T) over the tokens of completions, on all ranks, to mean 0 and
        variance 1."""
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in rollout:
            found = batch["advantages"][batch["known"] > 0].double().cpu()
            sums += torch.stack([torch.ones_like(found), found, found**2]).sum(1)
        tokens, total, squares = self.total(sums).tolist()
        mean = total / tokens
        deviation = math.sqrt(max(0.0, squares / tokens - mean**2) + 1e-8)
        for batch in rollout:
            batch["advantages"] = (batch["advantages"] - mean) / deviation

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
            for sample in self.scorer.samples:
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
        self.writer.update(self.step)
        of_the_step, self.sums = self.sums, defaultdict(lambda: [0.0, 0.0])
        for own, counts in self.own_batches(Numbered(rows)):
            prompts = [row for _, row in own]
            written = self.write(prompts, [(self.seed, _EVALUATION, number) for number, _ in own])
            rewards = self.scorer(prompts, written)
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
    trainer: Callable[..., PromptsTrainer],
    repeats: int = 1,
) -> StageResult:
    """Train on prompts, and save. repeats: steps on the same completions. Raises as `fit` does;
    RecipeError if rewards, the reference, the rows or the accelerators do not fit."""
    check_can_generate(request)
    # prompts of any length go into one pass: completions take most of the memory
    request.training = request.training.model_copy(update={"batching": "random"})
    make = partial(trainer, options=options)
    return fit(run, request, make, stage=stage, repeats=repeats, template=run.plugin("template"))


def check_can_generate(request: TrainRequest) -> None:
    """Raise RecipeError if completions cannot be generated while this is trained."""
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
