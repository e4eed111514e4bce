"""Training of text embeddings."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright import RecipeError
from tunewright.events import Notice
from tunewright.types import Embedding, LoadedModel, RunContext, StageResult, TrainRequest
from tunewright_embed.batches import Pool, RetrievalCollator
from tunewright_embed.losses import info_nce, ranking_metrics
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.models.modules import base_model
from tunewright_hf.training.fit import fit
from tunewright_hf.training.stage_trainer import Batch, StageTrainer, TrainingSetup, moved

_QUERIES = 256  # of an evaluation, that are compared with all documents at once


def train(
    run: RunContext, request: TrainRequest, options: Any, embedding: Embedding, stage: str
) -> StageResult:
    """Train on retrieval rows, and save. Raises as `fit` and `shorter_lengths` do."""
    lengths = shorter_lengths(run, request.loaded, options.matryoshka)
    freeze_head(request.loaded)
    make = partial(EmbedTrainer, options=options, lengths=lengths, embedding=embedding)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


def shorter_lengths(run: RunContext, loaded: LoadedModel, lengths: list[int]) -> list[int]:
    """The lengths that the model's vectors have. A tiny twin may lack some; for other models,
    raises RecipeError."""
    size = loaded.model.config.get_text_config().hidden_size
    too_long = [length for length in lengths if length >= size]
    if not too_long:
        return lengths
    problem = f"found {too_long[0]}, and the model's vectors have {size} numbers"
    if run.recipe.model != "tiny":
        raise RecipeError(problem, place="stage.matryoshka", hint="take smaller ones")
    run.emit(Notice(message=f"stage.matryoshka: {problem}: it is left out", level="warning"))
    return [length for length in lengths if length < size]


def freeze_head(loaded: LoadedModel) -> None:
    """Train no parameter of the head that the rest of the model does not share: no vector depends
    on it, and weight decay would change it."""
    model = loaded.model
    head = base_model(model).get_output_embeddings()
    own = {id(each) for each in head.parameters()}
    # tied weights are met once, under the name of the input embeddings
    rest = {
        id(parameter)
        for module in model.modules()
        if module not in (head, *head.modules())
        for parameter in module.parameters(recurse=False)
    }
    frozen = [(name, each) for name, each in model.named_parameters() if id(each) in own - rest]
    for _, parameter in frozen:
        parameter.requires_grad_(False)
    if loaded.trained is not None:
        loaded.trained -= {name for name, _ in frozen}


class EmbedTrainer(StageTrainer):
    """All texts of a step are compared with each other. Where it has several passes or ranks, the
    vectors are computed first without gradients; each pass then takes its part of the gradient with
    respect to them."""

    def __init__(
        self, setup: TrainingSetup, options: Any, lengths: list[int], embedding: Embedding
    ) -> None:
        super().__init__(setup)
        self.options, self.embedding = options, embedding
        self.causal_loss = CausalLoss(self.model)
        self.collate = RetrievalCollator(self.tokenizer.pad_token_id or 0)
        self.loss = partial(
            info_nce,
            temperature=options.temperature,
            lengths=lengths,
            symmetric=options.symmetric,
        )

    def weight(self, batch: Batch) -> float:
        return float(batch["queries"])

    # ---- a step ----------------------------------------------------------------------------------

    def prepare_step(self, batches: list[Any]) -> tuple[list[Batch], float]:
        found, weight = super().prepare_step(batches)
        if len(found) > 1 or self.run.data_world_size > 1:
            found = self._with_gradients(found)
        return found, weight

    def _with_gradients(self, batches: list[Batch]) -> list[Batch]:
        """The batches with the gradient of the step's summed loss with respect to their vectors,
        and with the loss of their own queries."""
        states = []
        pools = []
        for batch in batches:
            self.check_stop()
            states.append(_random_state(self.device))
            pools.append(self._pool(self.model, moved(batch, self.device)))
        own = Pool.joined(pools)
        whole, queries, documents = self._gathered(own)
        with torch.enable_grad():
            vectors = whole.queries.requires_grad_(), whole.documents.requires_grad_()
            losses = self.loss(*vectors, whole.fitting, whole.same)
            gradients = torch.autograd.grad(losses.sum(), vectors)
        queries_of = gradients[0][queries].split([len(pool.queries) for pool in pools])
        documents_of = gradients[1][documents].split([len(pool.documents) for pool in pools])
        losses_of = losses.detach()[queries].split([len(pool.queries) for pool in pools])
        return [
            {**batch, "gradient": torch.cat(parts), "loss": loss.sum(), "random": state}
            for batch, *parts, loss, state in zip(
                batches, queries_of, documents_of, losses_of, states, strict=True
            )
        ]

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Mean over the queries of the whole step, nats."""
        if "gradient" not in batch:
            vectors, auxiliary = self.causal_loss.pooled(forward, batch["inputs"], self.embedding)
            pool = Pool.of(vectors, batch)
            losses = self.loss(pool.queries, pool.documents, pool.fitting, pool.same)
            return losses.sum() * scale + auxiliary
        with _same_random(batch["random"], self.device):
            vectors, auxiliary = self.causal_loss.pooled(forward, batch["inputs"], self.embedding)
        product = (vectors * batch["gradient"]).sum()
        # the gradient of the product, and the value of the loss
        return (product + (batch["loss"] - product).detach()) * scale + auxiliary

    @torch.no_grad()
    def _pool(self, forward: Any, batch: Batch) -> Pool:
        with self.autocast():
            vectors = self.causal_loss.pooled(forward, batch["inputs"], self.embedding)[0]
        return Pool.of(vectors, batch)

    # ---- all ranks -------------------------------------------------------------------------------

    def _gathered(self, own: Pool) -> tuple[Pool, slice, slice]:
        """The vectors of all ranks, and which of the queries and documents are this rank's."""
        queries, some = self._from_all(own.queries)
        documents, others = self._from_all(own.documents)
        fitting = self._from_all(own.fitting + others.start)[0]
        texts = self._from_all(own.texts)[0]
        return Pool(queries, documents, fitting, texts), some, others

    def _from_all(self, own: Tensor) -> tuple[Tensor, slice]:
        """The rows of all ranks, in their order, and which of them are this rank's."""
        rank, ranks = self.run.data_rank, self.run.data_world_size
        if ranks == 1:
            return own, slice(0, len(own))
        copies = self.world_size // ranks  # ranks that have the same batch
        counts = torch.zeros(ranks, dtype=torch.float64)
        counts[rank] = len(own)
        ends = (self.total(counts) / copies).cumsum(0).long().tolist()
        mine = slice(ends[rank] - len(own), ends[rank])
        # numbers of 53 bits are exact in doubles
        every = torch.zeros(ends[-1], *own.shape[1:], dtype=torch.float64)
        every[mine] = own.double().cpu()
        return (self.total(every) / copies).to(own.device, own.dtype), mine

    # ---- evaluation ------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Loss and metrics of each query among the documents of the whole set."""
        order = np.argsort(-np.asarray(row_lengths(rows)), kind="stable").tolist()
        pools = []
        for own, counts in self.own_batches(rows, [[row] for row in order]):
            pool = self._pool(self.model, moved(self.collate(own), self.device))
            pools.append(pool if counts else pool.none())
        whole = self._gathered(Pool.joined(pools))[0]
        sums: dict[str, float] = {}
        for start in range(0, len(whole.queries), _QUERIES):
            some = whole.some(slice(start, start + _QUERIES))
            losses = self.loss(some.queries, some.documents, some.fitting, some.same)
            scores = some.queries @ some.documents.T
            found = {"loss": losses, **ranking_metrics(scores, some.fitting, some.same)}
            for metric, values in found.items():
                sums[metric] = sums.get(metric, 0.0) + float(values.double().sum())
        return {metric: total / len(whole.queries) for metric, total in sums.items()}


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """States of the random numbers of dropout, on the CPU and on the device."""
    on_gpu = device.type == "cuda"
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None


@contextmanager
def _same_random(states: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Within, the same dropout as after `_random_state`."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if states[1] is not None:
            torch.cuda.set_rng_state(states[1], device)
        yield
