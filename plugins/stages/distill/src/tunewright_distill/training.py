"""Distillation training."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_distill.cached import Store, WithTeacher, WithTeacherCollator
from tunewright_distill.losses import DIVERGENCES, log_softmax, with_the_rest
from tunewright_distill.scoring import check_can_cache, stores
from tunewright_distill.teacher import load_teacher
from tunewright_hf.losses.causal_lm import CausalLoss, shift
from tunewright_hf.losses.chunked_cross_entropy import label_logp
from tunewright_hf.training.causal_lm import CausalTrainer
from tunewright_hf.training.fit import fit
from tunewright_hf.training.online_rl import Numbered, Prompt, check_can_generate
from tunewright_hf.training.rollouts import RolloutGenerator, Sampling, last_answer
from tunewright_hf.training.stage_trainer import Batch, TrainingSetup, moved


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on messages, and save. Raises as `fit` does, and RecipeError if the teacher does not
    fit, or answers cannot be generated."""
    if options.lmbda:
        check_can_generate(request)
    if options.cache_top_k:
        check_can_cache(request)
    make = partial(DistillTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class DistillTrainer(CausalTrainer):
    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup, packing=False)
        run, request = setup.run, setup.request
        self.options, self.seed, self.padded = options, request.training.seed, self.collate
        self.divergence = DIVERGENCES[options.divergence]
        self.beta = 0.5 if options.beta is None else options.beta
        self.teacher: CausalLoss | None = None
        self.vocab = self.causal_loss.vocab  # tokens that both models have
        if not options.teacher_logits:
            self.teacher = load_teacher(run, request, options)
            # the head may have more rows than the tokenizer has tokens, and another number of them
            self.vocab = min(self.vocab, self.teacher.vocab)
        if options.cache_top_k:
            self._hold(stores(self, options))
            self.teacher = None
        # a plan is measured on the data's answers
        self.generates = bool(options.lmbda) and request.train_with is None
        if self.generates:
            self.train_rows, self.collate = Numbered(request.data.train), list
            how = (options.max_new_tokens, options.temperature, options.top_p, options.top_k)
            stop = run.plugin("template").info.stop
            self.writer = RolloutGenerator(request.loaded, stop, Sampling(*how), self.media)

    def _hold(self, found: dict[str, Store]) -> None:
        """Take rows with the teacher's tokens. found: of each set of rows, `train` first."""
        train, *evals = found.values()
        self.train_rows = WithTeacher(self.train_rows, train)
        named = zip(self.evals.items(), evals, strict=True)
        self.evals = {name: WithTeacher(rows, store) for (name, rows), store in named}
        self.padded = self.collate = WithTeacherCollator(self.padded, self.options.cache_top_k)

    # ---- generated answers -----------------------------------------------------------------------

    def prepare_step(self, batches: list[Any]) -> tuple[list[Batch], float]:
        if self.generates:
            with self.sharding.gathered(self.model):
                batches = [self._mixed(rows) for rows in batches]
        return super().prepare_step(batches)

    def _mixed(self, rows: list[Prompt]) -> Batch:
        """Padded batch of rows, of which a share gets an answer of the model's own."""
        self.check_stop()
        draws = [(self.seed, self.step, number) for number, _ in rows]
        starts = [last_answer(row["labels"])[0] for _, row in rows]
        chosen = [
            place
            for place, (draw, start) in enumerate(zip(draws, starts, strict=True))
            if start and np.random.default_rng(draw).random() < self.options.lmbda
        ]
        made = [row for _, row in rows]
        if chosen:
            prompts = [made[place]["input_ids"][: starts[place]] for place in chosen]
            media = [
                self.media.before(made[place], starts[place]) if self.media else []
                for place in chosen
            ]
            seeds = [(*draws[place], 0) for place in chosen]
            with self.autocast(), self.evaluation_mode():
                written = self.writer.write(prompts, seeds, media)
            for place, answer in zip(chosen, written, strict=True):
                made[place] = answer.row()
        return self.report_unreadable(self.padded(made))  # type: ignore[no-any-return]

    # ---- the loss --------------------------------------------------------------------------------

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Weighted mean over the trained tokens of the whole step, nats."""
        values, auxiliary = self._values(forward, batch)
        weights = shift(batch["labels"], batch.get("loss_weights"))[1]
        return (self._total(values) * weights).sum() * scale + auxiliary

    def _total(self, values: Tensor) -> Tensor:
        return values[..., 0] + self.options.nll_weight * values[..., 1]

    def _values(self, forward: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(values, auxiliary): divergence and negative log-likelihood at each label (B, T, 2), and
        the family's own auxiliary loss."""
        inputs, labels = batch["inputs"], batch["labels"]
        temperature = self.options.divergence_temperature
        if self.teacher is None:
            others: tuple[Tensor, ...] = (batch["teacher_ids"], batch["teacher_logps"])
        else:
            states, score = self.teacher.states(inputs, labels)
            others = (states,)

        def value(logits: Tensor, targets: Tensor, *of_teacher: Tensor) -> Tensor:
            student = log_softmax(logits[:, : self.vocab], temperature)
            if self.teacher is None:
                ids, teacher = of_teacher
                student = with_the_rest(student, ids)
            else:
                with torch.no_grad():
                    wide = score(of_teacher[0]).float()
                    teacher = log_softmax(wide[:, : self.vocab], temperature)
            found = self.divergence(teacher, student, self.beta)
            return torch.stack([found, -label_logp(logits, targets)], 1)

        return self.causal_loss.values(forward, inputs, labels, value, *others)

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Loss and negative log-likelihood at the trained tokens of the data."""
        sums = torch.zeros(3, dtype=torch.float64)  # loss, likelihood, weight
        plain = self.request.data.evals[name]
        for own, counts in self.own_batches(rows, self.eval_units(plain)):
            batch = moved(self.report_unreadable(self.padded(own)), self.device)
            values = self._values(self.model, batch)[0]
            weights = shift(batch["labels"], batch.get("loss_weights"))[1]
            if counts:
                found = (self._total(values), values[..., 1], torch.ones_like(weights))
                sums += torch.stack([(each * weights).sum() for each in found]).double().cpu()
        loss, nll, weight = self.total(sums).tolist()
        return {"loss": loss / weight, "nll": nll / weight} if weight else {"loss": 0.0, "nll": 0.0}
