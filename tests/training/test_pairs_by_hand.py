"""The first step of every stage on pairs and labels: its loss and all of its metrics, by their
names, in a few lines of numpy from transformers' own logits. The model and its reference are far
apart, so that nothing is 0 or equal."""

import datasets
import numpy as np
import pytest
import torch
from answers_setup import run_stage
from test_pairs_losses import s
from test_pairs_training import CASES, plain
from training_setup import a_run, loaded, logs_of, model

from tunewright_dpo import Dpo
from tunewright_kto import Kto
from tunewright_orpo import Orpo
from tunewright_reward import Reward
from tunewright_simpo import Simpo

PAIRS = [
    {"prompt_ids": [5, 6], "chosen_ids": [7, 2], "rejected_ids": [90, 2]},
    {"prompt_ids": [40], "chosen_ids": [50, 2], "rejected_ids": [2]},
]
LABELS = [
    {"prompt_ids": [5, 6], "completion_ids": [7, 2], "label": True},
    {"prompt_ids": [40], "completion_ids": [90, 2], "label": False},
]


def sharp(scale: float):
    made = model().eval()
    with torch.no_grad():
        made.lm_head.weight.mul_(scale)
    return made


def logps(made, rows, name, others=None) -> tuple[np.ndarray, np.ndarray]:
    """(sums, means) of the answers' log-probabilities; others: rows whose answers are taken in
    place of their own."""
    found = []
    for row, other in zip(rows, others or rows, strict=True):
        prompt, ids = row["prompt_ids"], other[name]
        with torch.no_grad():
            logits = made(input_ids=torch.tensor([prompt + ids])).logits[0].double().numpy()
        each = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        found.append([each[len(prompt) - 1 + place, token] for place, token in enumerate(ids)])
    return np.array([sum(each) for each in found]), np.array([np.mean(each) for each in found])


def first_step(folder, stage, rows, made=None, reference=None):
    """What is reported of a step that moves nothing."""
    run = a_run(folder, loads=lambda **_: loaded(reference))
    data, how = (
        datasets.Dataset.from_list(rows),
        {"max_steps": 1, "learning_rate": 1e-12, "batching": "random"},
    )
    run_stage(folder, loaded(made or sharp(20)), stage, data, run=run, **how)
    (logged,) = logs_of(run)
    return logged


def check(found, expected):
    of_the_training = {"step", "learning_rate", "grad_norm", "epoch", "tokens"}
    assert found.keys() - of_the_training == expected.keys()
    for name, value in expected.items():
        assert abs(np.mean(value)) > 1e-3, name
        assert found[name] == pytest.approx(np.mean(value), rel=1e-4), name


def pair_metrics(chosen, rejected, sums_chosen, sums_rejected):
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": chosen > rejected,
        "logps/chosen": sums_chosen,
        "logps/rejected": sums_rejected,
    }


def test_dpo(tmp_path):
    policy, reference = sharp(20), sharp(-10)
    stage = Dpo(
        Dpo.Options(beta=0.3, label_smoothing=0.1, sft_weight=0.5, reference="other"), "dpo"
    )
    found = first_step(tmp_path, stage, PAIRS, reference=reference)
    (chosen, means), (rejected, _) = (
        logps(policy, PAIRS, name) for name in ("chosen_ids", "rejected_ids")
    )
    (chosen_before, _), (rejected_before, _) = (
        logps(reference, PAIRS, n) for n in ("chosen_ids", "rejected_ids")
    )
    good, bad = 0.3 * (chosen - chosen_before), 0.3 * (rejected - rejected_before)
    loss = -0.9 * np.log(s(good - bad)) - 0.1 * np.log(s(bad - good)) + 0.5 * -means
    check(found, {"loss": loss, "nll_loss": -means, **pair_metrics(good, bad, chosen, rejected)})


def test_kto(tmp_path):
    """Of two rows each has the other's answer for the divergence."""
    policy, reference = sharp(20), sharp(-10)
    options = Kto.Options(beta=0.3, desirable_weight=1.5, undesirable_weight=0.5, reference="other")
    found = first_step(tmp_path, Kto(options, "kto"), LABELS, reference=reference)
    (own, _), (own_before, _) = (
        logps(each, LABELS, "completion_ids") for each in (policy, reference)
    )
    (other, _), (before, _) = (
        logps(each, LABELS, "completion_ids", LABELS[::-1]) for each in (policy, reference)
    )
    kl = max(0.0, (other - before).mean())
    good, bad = 0.3 * (own - own_before)
    loss = (1.5 * (1 - s(good - 0.3 * kl)) + 0.5 * (1 - s(0.3 * kl - bad))) / 2
    metrics = {"rewards/chosen": good, "rewards/rejected": bad, "rewards/margins": good - bad}
    expected = {"loss": loss, "kl": kl, "logps/chosen": own[0], "logps/rejected": own[1], **metrics}
    if not kl:
        assert expected.pop("kl") == found.pop("kl") == 0
    check(found, expected)


def test_orpo(tmp_path):
    found = first_step(tmp_path, Orpo(Orpo.Options(beta=0.3), "orpo"), PAIRS)
    (chosen, good), (rejected, bad) = (
        logps(sharp(20), PAIRS, name) for name in ("chosen_ids", "rejected_ids")
    )
    odds = good - bad - np.log(1 - np.exp(good)) + np.log(1 - np.exp(bad))
    own = {"log_odds_chosen": odds, "log_odds_ratio": np.log(s(odds)), "nll_loss": -good}
    check(
        found,
        {
            "loss": -good - 0.3 * np.log(s(odds)),
            **own,
            **pair_metrics(0.3 * good, 0.3 * bad, chosen, rejected),
        },
    )


def test_simpo(tmp_path):
    stage = Simpo(Simpo.Options(beta=1.5, gamma=0.4, sft_weight=0.5), "simpo")
    found = first_step(tmp_path, stage, PAIRS)
    (chosen, good), (rejected, bad) = (
        logps(sharp(20), PAIRS, name) for name in ("chosen_ids", "rejected_ids")
    )
    loss = -np.log(s(1.5 * (good - bad) - 0.4)) - 0.5 * good
    check(
        found,
        {"loss": loss, "nll_loss": -good, **pair_metrics(1.5 * good, 1.5 * bad, chosen, rejected)},
    )


def test_reward(tmp_path):
    made = plain(CASES["reward"]).eval()
    with torch.no_grad():
        made.score.weight.mul_(20)
        good, bad = (
            np.array(
                [
                    made.score(
                        made.model(torch.tensor([row["prompt_ids"] + row[name]])).last_hidden_state[
                            0, -1
                        ]
                    ).item()
                    for row in PAIRS
                ]
            )
            for name in ("chosen_ids", "rejected_ids")
        )
    rows = [{**row, "margin": margin} for row, margin in zip(PAIRS, (0.2, 0.7), strict=True)]
    found = first_step(
        tmp_path, Reward(Reward.Options(center_coefficient=0.1), "reward"), rows, made
    )
    loss = -np.log(s(good - bad - np.array([0.2, 0.7]))) + 0.1 * (good + bad) ** 2
    metrics = {
        name: each
        for name, each in pair_metrics(good, bad, 0, 0).items()
        if name.startswith("rewards")
    }
    check(found, {"loss": loss, **metrics})
