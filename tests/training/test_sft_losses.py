"""The losses of stage sft: what a token's own probability, or the entropy around it, leaves of its
loss."""

from math import log

import pytest
import torch
from training_setup import a_run, loaded, logs_of, model, rows

import tunewright_hf.losses.chunked_cross_entropy
from tunewright.recipe import Training
from tunewright.types import Data, TrainRequest
from tunewright_hf.batching.collators import Packed, Padded
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.losses.chunked_cross_entropy import weighted_sum
from tunewright_sft import Sft
from tunewright_sft.losses import LOSSES

WEIGHED = ["dft", "eaft"]


def of_two_tokens(loss: str, logits: list[list[float]], targets: list[int], weights: list[float]):
    """(sum, gradient of the logits), without a model: what scores the states hands them on."""
    states = torch.tensor([logits], requires_grad=True)
    total = weighted_sum(
        states, lambda each: each, torch.tensor([targets]), torch.tensor([weights]), 3, LOSSES[loss]
    )
    total.backward()
    return total.item(), states.grad[0]


# Of three tokens, the first position gives 1/2, 1/4, 1/4, and its label has 1/4; the second 1/10,
# 8/10, 1/10, and 8/10.
LOGITS = [[log(2), 0.0, 0.0], [0.0, log(8), 0.0]]
TARGETS = [1, 1]


def test_dft_by_hand():
    """1/4 · ln 4 + 1/2 · 8/10 · ln 10/8: each token's loss by its own probability, and by its
    message's weight."""
    total, gradient = of_two_tokens("dft", LOGITS, TARGETS, [1.0, 0.5])
    assert total == pytest.approx(0.25 * log(4) + 0.5 * 0.8 * log(1.25))
    # the weight has no gradient: it is that of the plain loss, probability minus one-hot, times the
    # weight
    expected = [[0.25 * 0.5, 0.25 * -0.75, 0.25 * 0.25], [0.4 * 0.1, 0.4 * -0.2, 0.4 * 0.1]]
    torch.testing.assert_close(gradient, torch.tensor(expected))


def test_eaft_by_hand():
    """Entropies 3/2 ln 2 and -(0.8 ln 0.8 + 0.2 ln 0.1), both over ln 3: there are fewer than 20
    tokens."""
    total, gradient = of_two_tokens("eaft", LOGITS, TARGETS, [1.0, 0.5])
    first, second = 1.5 * log(2) / log(3), -(0.8 * log(0.8) + 0.2 * log(0.1)) / log(3)
    assert total == pytest.approx(first * log(4) + 0.5 * second * log(1.25))
    expected = [
        [first * each for each in (0.5, -0.75, 0.25)],
        [0.5 * second * each for each in (0.1, -0.2, 0.1)],
    ]
    torch.testing.assert_close(gradient, torch.tensor(expected))


def test_eaft_looks_at_the_20_likeliest_tokens():
    logits = torch.zeros(1, 100)
    logits[0, 20:] = -1.0  # they have most of the probability, but none of the 20 highest logits
    weight = LOSSES["eaft"](logits, torch.zeros(1))
    assert weight.item() == pytest.approx(1.0)
    logits[0, 0] = 40.0
    assert LOSSES["eaft"](logits, torch.zeros(1)).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", WEIGHED)
def test_chunks_add_up_and_evaluation_is_plain(loss, monkeypatch):
    made = model()
    torch.manual_seed(3)
    ids = torch.randint(3, 128, (3, 9))

    def measured():
        total, _ = CausalLoss(made)(
            made, {"input_ids": ids}, ids, None, token_weighting=LOSSES[loss]
        )
        made.zero_grad()
        total.backward()
        return total, [each.grad.clone() for each in made.parameters()]

    whole = measured()
    monkeypatch.setattr(tunewright_hf.losses.chunked_cross_entropy, "CPU_CHUNK", 4 * 128)
    monkeypatch.setattr(tunewright_hf.losses.chunked_cross_entropy, "LEAST", 1)
    torch.testing.assert_close(measured(), whole)
    assert whole[0] < CausalLoss(made)(made, {"input_ids": ids}, ids, None)[0]


@pytest.mark.parametrize("loss", WEIGHED)
def test_packed_is_padded(loss):
    made, found = model(), []
    for batch in (Padded(0)(list(rows(6, weighted=True))), Packed()(list(rows(6, weighted=True)))):
        labels, weights = batch.pop("labels"), batch.pop("loss_weights")
        total, _ = CausalLoss(made)(
            made, batch["inputs"], labels, weights, token_weighting=LOSSES[loss]
        )
        made.zero_grad()
        total.backward()
        found.append((total.detach(), [each.grad.clone() for each in made.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def trained(folder, loss, evals=None, **settings):
    """Stage sft as the kernel calls it: (run, result, model)."""
    run, made = a_run(folder), loaded(model())
    training = Training(
        **{
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "max_steps": 3,
            "batching": "random",
            "precision": "fp32",
            **settings,
        }
    )
    request = TrainRequest(made, Data(train=rows(11), evals=evals or {}), training, folder)
    return run, Sft(Sft.Options(loss=loss), "sft").train_stage(run, request), made.model


@pytest.mark.parametrize("loss", WEIGHED)
def test_how_rows_are_spread_over_passes_makes_no_difference(tmp_path, loss):
    one, _, made = trained(tmp_path / "4x1", loss, per_device_train_batch_size=4)
    four, _, other = trained(
        tmp_path / "1x4", loss, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    for left, right in zip(logs_of(one), logs_of(four), strict=True):
        assert left == pytest.approx(right, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(
        dict(made.named_parameters()), dict(other.named_parameters()), rtol=1e-3, atol=1e-4
    )


def test_evaluation_reports_the_same_loss_for_all(tmp_path):
    """At a learning rate that moves nothing, only training tells them apart."""
    found = {}
    for loss in LOSSES:
        run, result, _ = trained(
            tmp_path / loss, loss, {"it": rows(5, seed=4)}, max_steps=1, learning_rate=1e-12
        )
        found[loss] = logs_of(run)[0]["loss"], result.metrics["it_loss"]
    (nll, evaluated), *others = found.values()
    assert all(loss < 0.99999 * nll for loss, _ in others)  # a new model is hardly sure of anything
    assert [each for _, each in others] == pytest.approx([evaluated] * 2, rel=1e-6)
