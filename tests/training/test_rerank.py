"""Rerankers: losses beside sentence-transformers' and by hand, equal gradients however a step is
split, a run that resumes as it would have gone on."""

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from answers_setup import run_stage
from pydantic import ValidationError
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.losses import (
    BinaryCrossEntropyLoss,
    ListNetLoss,
    RankNetLoss,
)
from stage_checks import check_resumed, check_split
from training_setup import SIZE, loaded, lora
from transformers import AutoModelForSequenceClassification, LlamaConfig

from tunewright import RunError
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_rerank import Rerank
from tunewright_rerank.losses import ranking_loss, ranking_metrics

LOSSES = ["softmax", "listnet", "ranknet", "margin", "bce"]


def rerank(**options: Any) -> Rerank:
    return Rerank(Rerank.Options(**options), "rerank")


def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, num_labels=1)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


def rows(number: int = 16, seed: int = 0) -> datasets.Dataset:
    """The fitting document begins with token 5, others with 6; there are one to three of these."""
    made = torch.Generator().manual_seed(seed)

    def ids(first: int, length: int) -> list[int]:
        return [first, *torch.randint(20, SIZE["vocab_size"], (length,), generator=made).tolist()]

    table = [
        {
            "query_ids": [],
            "document_ids": [ids(5, 2 + n % 4), *(ids(6, 1 + k + n % 3) for k in range(1 + n % 3))],
        }
        for n in range(number)
    ]
    features = datasets.Features(
        query_ids=datasets.List(datasets.Value("int32")),
        document_ids=datasets.List(datasets.List(datasets.Value("int32"))),
    )
    return datasets.Dataset.from_list(table, features=features)


# ---- losses --------------------------------------------------------------------------------------

SCORES = torch.tensor([0.7, -0.2, 1.1])


def test_losses_by_hand() -> None:
    a, b, c = SCORES.tolist()

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    total = sum(math.exp(x) for x in (a, b, c))
    e = math.e
    soft = [math.log(math.exp(x) / total) for x in (a, b, c)]
    expected = {
        "softmax": -soft[0],
        "listnet": -(e * soft[0] + soft[1] + soft[2]) / (e + 2),
        "ranknet": -(math.log(sigmoid(a - b)) + math.log(sigmoid(a - c))) / 2,
        "margin": (max(0, 0.5 - a + b) + max(0, 0.5 - a + c)) / 2,
        "bce": -(math.log(sigmoid(a)) + math.log(sigmoid(-b)) + math.log(sigmoid(-c))) / 3,
    }
    found = {name: float(ranking_loss(SCORES, name, 0.5)) for name in LOSSES}
    assert found == pytest.approx(expected, abs=1e-6)


class Given(CrossEncoder):
    """In place of a CrossEncoder: scores that are known, of documents that are named by their
    place among them."""

    def __init__(self, scores: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.scores = scores

    num_labels = 1
    device = torch.device("cpu")

    def preprocess(self, pairs: Any, **how: Any) -> dict[str, Any]:
        return {"places": torch.tensor([int(document) for _, document in pairs])}

    def forward(self, features: dict[str, Any], **how: Any) -> dict[str, Any]:
        return {"scores": self.scores[features["places"], None]}


@pytest.mark.parametrize("name", ["bce", "ranknet", "listnet"])
def test_losses_and_gradients_are_those_of_sentence_transformers(name: str) -> None:
    made = torch.Generator().manual_seed(0)
    own = torch.randn(3, 4, generator=made).requires_grad_()  # three queries with four documents
    theirs = own.detach().flatten().clone().requires_grad_()
    kinds: dict[str, Any] = {
        "bce": BinaryCrossEntropyLoss,
        "listnet": ListNetLoss,
        "ranknet": lambda m: RankNetLoss(m, reduction_log="natural"),
    }
    names = [str(place) for place in range(12)]
    pairs: Any = (["q"] * 3, [names[:4], names[4:8], names[8:]])
    labels: Any = [torch.tensor([1.0, 0.0, 0.0, 0.0])] * 3
    if name == "bce":
        pairs, labels = (["q"] * 12, names), torch.cat(labels)
    reference = kinds[name](Given(theirs))([*pairs], labels)
    found = torch.stack([ranking_loss(each, name, 1.0) for each in own]).mean()
    found.backward()
    reference.backward()
    assert float(found.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    assert torch.allclose(own.grad.flatten(), theirs.grad, atol=1e-6)


def test_metrics_by_rank() -> None:
    first = ranking_metrics(torch.tensor([2.0, 1.0, 0.0]))
    assert first == {"accuracy": 1, "mrr@10": 1, "ndcg@10": 1}
    third = ranking_metrics(torch.tensor([0.0, 2.0, 1.0]))
    assert third == pytest.approx({"accuracy": 0, "mrr@10": 1 / 3, "ndcg@10": 0.5})
    assert ranking_metrics(torch.tensor([1.0, 1.0]))["accuracy"] == 0  # nothing was learned
    assert ranking_metrics(torch.tensor([0.0, *[1.0] * 10]))["mrr@10"] == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": "{query}"}, "expected {document} once, found it 0 times"),
        ({"prompt": "{query}{query}{document}"}, "expected {query} once"),
        ({"margin": 2.0}, "margin: loss softmax has none"),
    ],
)
def test_options_that_do_not_fit(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Rerank.Options(**given)


def test_braces_in_texts_are_text() -> None:
    pair = rerank(prompt="{document}|{query}").embedding.pair("{document}", "{query}")
    assert pair == "{query}|{document}"


# ---- training ------------------------------------------------------------------------------------


def test_lengths_count_the_documents_alone() -> None:
    assert row_lengths(rows(2)).tolist() == [2 * 3, 3 * 4]


@pytest.mark.parametrize("how", ["full", "lora"])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns(tmp_path: Path, loss: str, how: str) -> None:
    made = lora(model(), dropout=0.0, task="SEQ_CLS") if how == "lora" else loaded(model())
    evals = {"it": rows(6, seed=3)}
    _, result = run_stage(tmp_path, made, rerank(loss=loss), rows(), evals=evals, max_steps=30)
    assert result.metrics["it_accuracy"] == 1  # by chance: one in 576
    assert set(result.metrics) >= {f"it_{name}" for name in Rerank.eval_metrics}


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_a_step_does_not_depend_on_how_it_is_split(tmp_path: Path, loss: str) -> None:
    """Also: a row alone has the loss that it has among longer ones."""
    check_split(tmp_path, lambda: loaded(model()), rerank(loss=loss), rows(), rows(5, seed=4))


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    check_resumed(tmp_path, lambda: lora(model(), task="SEQ_CLS"), rerank(), rows())


def test_rows_without_a_negative_are_refused_before_the_first_step(tmp_path: Path) -> None:
    alone = rows().map(lambda row: {"document_ids": row["document_ids"][:1]})
    with pytest.raises(RunError, match="data: a row has no negative document"):
        run_stage(tmp_path, loaded(model()), rerank(), alone)
