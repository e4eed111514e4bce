"""Embeddings: the loss beside sentence-transformers', equal gradients however a step is split, and
a run that resumes as it would have gone on."""

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from answers_setup import run_stage
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from training_setup import SIZE, a_run, loaded, logs_of, lora, model, stop_after

import forked
from tunewright import RecipeError
from tunewright.errors import Stopped
from tunewright_embed import Embed
from tunewright_embed.batches import Pool, RetrievalCollator
from tunewright_embed.losses import info_nce, ranking_metrics
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.losses.causal_lm import CausalLoss

LIKE_EACH_OTHER = {"batching": "random", "max_steps": 4}


def rows(number: int = 16, seed: int = 0) -> datasets.Dataset:
    """A query of a few tokens, each of them turned into another, and other documents."""
    made = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        return torch.randint(3, SIZE["vocab_size"], (length,), generator=made).tolist()

    table = []
    for row in range(number):
        query = ids(2 + row % 5)
        others = [ids(3 + n) for n in range(row % 3)]
        own = [3 + (token * 5) % (SIZE["vocab_size"] - 3) for token in query]
        table.append({"query_ids": query, "document_ids": [own, *others]})
    return datasets.Dataset.from_list(table)


def embed(**options: Any) -> Embed:
    return Embed(Embed.Options(**options), "embed")


# ---- the loss ------------------------------------------------------------------------------------


def vectors(count: int, seed: int) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(count, 8, generator=made, dtype=torch.float64)


def by_hand(query: torch.Tensor, documents: torch.Tensor, own: int, counted: list[int]) -> float:
    """The negative log-probability of one document, written out."""
    scores = [float(torch.cosine_similarity(query, each, dim=0) / 0.1) for each in documents]
    return -scores[own] + math.log(sum(math.exp(scores[n]) for n in counted))


def test_the_loss_is_what_the_formula_says() -> None:
    queries, documents = vectors(2, 0), vectors(5, 1)
    fitting, texts = torch.tensor([0, 3]), torch.tensor([11, 12, 13, 14, 15])
    same = texts[fitting][:, None] == texts[None]
    found = info_nce(queries, documents, fitting, same, 0.1)
    expected = [by_hand(queries[n], documents, own, [*range(5)]) for n, own in enumerate((0, 3))]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_a_document_with_the_text_of_the_own_one_is_no_negative() -> None:
    queries, documents = vectors(2, 0), vectors(4, 1)
    fitting, texts = torch.tensor([0, 2]), torch.tensor([11, 12, 11, 13])
    same = texts[fitting][:, None] == texts[None]
    found = info_nce(queries, documents, fitting, same, 0.1)
    expected = [
        by_hand(queries[0], documents, 0, [0, 1, 3]),
        by_hand(queries[1], documents, 2, [1, 2, 3]),
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_shorter_vectors_are_beginnings_and_count_alike() -> None:
    queries, documents = vectors(3, 0), vectors(3, 1)
    fitting = torch.arange(3)
    same = torch.eye(3, dtype=torch.bool)
    found = info_nce(queries, documents, fitting, same, 0.1, lengths=[2, 4])
    parts = [info_nce(queries[:, :n], documents[:, :n], fitting, same, 0.1) for n in (2, 4, 8)]
    assert torch.allclose(found, torch.stack(parts).mean(0))


def test_the_symmetric_loss_also_finds_queries() -> None:
    queries, documents = vectors(3, 0), vectors(3, 1)
    fitting, same = torch.arange(3), torch.eye(3, dtype=torch.bool)
    both = info_nce(queries, documents, fitting, same, 0.1, symmetric=True)
    there = info_nce(queries, documents, fitting, same, 0.1)
    back = info_nce(documents, queries, fitting, same, 0.1)
    assert torch.allclose(both, (there + back) / 2)


def test_metrics_by_rank() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.3], [0.5, 0.4, 0.1], [0.7, 0.7, 0.7]])
    fitting, same = torch.arange(3), torch.eye(3, dtype=torch.bool)
    found = ranking_metrics(scores, fitting, same)
    assert found["accuracy"].tolist() == [1, 0, 1]
    assert found["mrr@10"].tolist() == [1, 0.5, 1]
    assert found["ndcg@10"].tolist() == pytest.approx([1, 0.63093, 1], abs=1e-5)


class Given(torch.nn.Module):
    """In place of a sentence-transformers model: vectors that are known."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(features)

    def get_embedding_dimension(self) -> int:
        return self.size

    get_sentence_embedding_dimension = get_embedding_dimension


@pytest.mark.parametrize("lengths", [[], [4, 2]])
def test_loss_and_gradient_are_those_of_sentence_transformers(lengths: list[int]) -> None:
    own = [vectors(6, seed).float().requires_grad_() for seed in (0, 1, 2)]
    documents = torch.cat(own[1:])  # all positives, then all negatives, as theirs
    same = torch.eye(6, 12, dtype=torch.bool)
    losses = info_nce(own[0], documents, torch.arange(6), same, 0.05, lengths=lengths)
    theirs_model: Any = Given(8)
    theirs: Any = MultipleNegativesRankingLoss(theirs_model, scale=20.0)
    copies = [each.detach().clone().requires_grad_() for each in own]
    if lengths:
        theirs = MatryoshkaLoss(theirs_model, theirs, [8, *lengths], matryoshka_weights=[1 / 3] * 3)
    found = theirs([{"sentence_embedding": each} for each in copies], None)
    losses.mean().backward()
    found.backward()
    assert float(found.detach()) == pytest.approx(float(losses.mean().detach()), rel=1e-5)
    for one, other in zip(own, copies, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


# ---- batches -------------------------------------------------------------------------------------


def test_a_batch_has_the_queries_first_and_knows_equal_documents() -> None:
    data = [
        {"query_ids": [3, 4], "document_ids": [[5], [6, 7, 8]]},
        {"query_ids": [9], "document_ids": [[5]]},
    ]
    batch = RetrievalCollator(0)(data)
    assert batch["inputs"]["input_ids"].tolist() == [
        [3, 4, 0],
        [9, 0, 0],
        [5, 0, 0],
        [6, 7, 8],
        [5, 0, 0],
    ]
    assert batch["inputs"]["attention_mask"].sum(1).tolist() == [2, 1, 1, 3, 1]
    assert batch["queries"] == 2
    assert batch["fitting"].tolist() == [0, 2]
    pool = Pool.of(torch.zeros(5, 4), batch)
    assert pool.same.tolist() == [[True, False, True], [True, False, True]]
    again = Pool.joined([pool, pool])
    assert again.fitting.tolist() == [0, 2, 3, 5]
    assert again.same[:2, :3].tolist() == pool.same.tolist()


def test_lengths_count_every_text_as_the_longest() -> None:
    assert row_lengths(rows(3)).tolist() == [2 * 2, 3 * 3, 4 * 4]


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "lora"])
@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
def test_it_learns(tmp_path: Path, how: str, pooling: str) -> None:
    made = lora(model(), dropout=0.0) if how == "lora" else loaded(model())
    stage = embed(pooling=pooling, matryoshka=[8])
    run, result = run_stage(
        tmp_path,
        made,
        stage,
        rows(),
        evals={"it": rows(6)},
        max_steps=32,
        learning_rate=3e-3,
    )
    logged = logs_of(run)
    assert logged[-1]["loss"] < 0.5 * logged[0]["loss"]
    assert result.metrics["it_accuracy"] >= 5 / 6
    assert set(result.metrics) >= {f"it_{name}" for name in Embed.eval_metrics}


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_step_does_not_depend_on_how_it_is_split(tmp_path: Path, symmetric: bool) -> None:
    """Two passes of 4 rows have the negatives and the gradients of one pass of 8."""
    found = []
    for size, passes in ((8, 1), (4, 2), (2, 4)):
        run, result = run_stage(
            tmp_path / str(size),
            loaded(model()),
            embed(symmetric=symmetric),
            rows(),
            evals={"it": rows(5, seed=4)},
            per_device_train_batch_size=size,
            gradient_accumulation_steps=passes,
            per_device_eval_batch_size=size,
            **LIKE_EACH_OTHER,
        )
        found.append((logs_of(run), result.metrics))
    for logged, metrics in found[1:]:
        for one, other in zip(found[0][0], logged, strict=True):
            assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
        assert metrics == pytest.approx(found[0][1], rel=1e-4, abs=1e-6)


def test_dropout_is_the_same_in_both_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient is that of the vectors with respect to which it was taken."""
    seen: list[torch.Tensor] = []
    own = CausalLoss.pooled

    def pooled(self: CausalLoss, *how: Any) -> Any:
        found = own(self, *how)
        seen.append(found[0].detach())
        return found

    monkeypatch.setattr(CausalLoss, "pooled", pooled)
    made = lora(model(), dropout=0.5)
    run_stage(tmp_path, made, embed(), rows(), gradient_accumulation_steps=2, max_steps=2)
    assert len(seen) == 8  # two steps: two batches without gradients, and again with them
    for first, second in ((0, 2), (1, 3), (4, 6), (5, 7)):
        assert torch.allclose(seen[first], seen[second], atol=1e-6)


def test_vectors_longer_than_the_model_has_are_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.recipe = run.recipe.model_copy(update={"model": "org/name"})
    with pytest.raises(RecipeError, match="found 64, and the model's vectors have 32 numbers"):
        run_stage(tmp_path, loaded(model()), embed(matryoshka=[64, 8]), rows(), run=run)


def test_a_tiny_twin_leaves_longer_vectors_out(tmp_path: Path) -> None:
    run, _ = run_stage(tmp_path, loaded(model()), embed(matryoshka=[64, 8]), rows(), max_steps=1)
    assert any("vectors have 32 numbers: it is left out" in each for each in run.notices)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = {"gradient_accumulation_steps": 2, "max_steps": 6, "logging_steps": 1}
    whole, _ = run_stage(tmp_path / "whole", lora(model()), embed(), rows(), **settings)
    with pytest.raises(Stopped):
        run_stage(tmp_path / "part", lora(model()), embed(), rows(), stop=stop_after(3), **settings)
    checkpoint = max((tmp_path / "part/checkpoints").glob("step-*"))
    again, _ = run_stage(
        tmp_path / "part", lora(model()), embed(), rows(), checkpoint=checkpoint, **settings
    )
    assert logs_of(again) == logs_of(whole)[3:]


@pytest.mark.slow
def test_two_processes_are_one_with_all_negatives(tmp_path: Path) -> None:
    settings = {**LIKE_EACH_OTHER, "per_device_eval_batch_size": 2}
    asked = json.dumps({**settings, "per_device_train_batch_size": 2})
    worker = Path(__file__).parent / "embed_worker.py"
    done = forked.run(worker, str(tmp_path / "two"), asked, processes=2)
    assert done.codes == [0, 0], done.error[-3000:]
    (line,) = (line for line in done.output.splitlines() if line.startswith("RESULT "))
    logged, metrics = json.loads(line[7:])
    run, result = run_stage(
        tmp_path / "one",
        loaded(model()),
        embed(),
        rows(14),
        evals={"it": rows(5, seed=4)},
        per_device_train_batch_size=4,
        **settings,
    )
    assert metrics == pytest.approx(result.metrics, rel=1e-4, abs=1e-6)
    for two, one in zip(logged, logs_of(run), strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6)
