"""Advantages, sampling and steps of the methods that grpo's options make."""

from typing import Any

import numpy as np
import pytest
import torch
from prompts_setup import (
    REWARDS,
    Named,
    one_by_one_and_at_once,
    own_rewards,
    prompts,
    prompts_run,
    run_stage,
    wanted,
)
from test_grpo import adapted, grpo
from test_resume import assert_same_state, no_pickle
from training_setup import loaded, logs_of, model, stop_after

from tunewright.errors import Stopped
from tunewright_grpo.training import GrpoTrainer
from tunewright_hf.checkpoints.folder import checkpoints, latest_checkpoint

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_rewards")


def first_rollout(folder, monkeypatch, **options: Any) -> tuple[list[Any], list[Any], Any]:
    """The batches of the first step, its completions with their rewards, and its log."""
    seen, asked = [], []
    make, answers = GrpoTrainer.make_rollout, GrpoTrainer.answers

    def made(self: Any, batches: Any) -> Any:
        seen.append([dict(batch) for batch in make(self, batches)])
        return [dict(batch) for batch in seen[-1]]

    def answered(self: Any, *given: Any) -> Any:
        asked.append(answers(self, *given))
        return asked[-1]

    monkeypatch.setattr(GrpoTrainer, "make_rollout", made)
    monkeypatch.setattr(GrpoTrainer, "answers", answered)
    reference = model()
    with torch.no_grad():
        reference.lm_head.weight.mul_(-20)
    run, _ = run_stage(
        folder,
        loaded(model()),
        grpo(**options),
        reference=loaded(reference),
        learning_rate=1e-12,
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    return seen[0], asked, logs_of(run)[0]


@pytest.mark.parametrize(
    "advantage", ["rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"]
)
def test_advantages_with_the_divergence_in_the_rewards(tmp_path, monkeypatch, advantage):
    """Over two passes of a step, by plain sums."""
    batches, asked, log = first_rollout(
        tmp_path, monkeypatch, advantage=advantage, beta=0.1, kl_in_reward=True, num_generations=3
    )
    expected, found, divergences = [], [], []
    for batch, (_, rewards) in zip(batches, asked, strict=True):
        known = batch["known"] > 0
        kl = (batch["old"] - batch["reference"]).double()
        per_row = torch.stack([row[mask].sum() for row, mask in zip(kl, known, strict=True)])
        divergences += [row[mask].mean().item() for row, mask in zip(kl, known, strict=True)]
        shaped = (rewards - 0.1 * per_row).view(-1, 3)
        others = (shaped.sum(1, keepdim=True) - shaped) / 2
        baseline = {"rloo": others, "reinforce_plus_plus_baseline": shaped.mean(1, keepdim=True)}
        for row, mask in enumerate(known):
            places = mask.nonzero().flatten().tolist()
            if advantage == "reinforce_plus_plus":
                value = [
                    rewards[row].item() - 0.1 * kl[row, place : places[-1] + 1].sum().item()
                    for place in places
                ]
            else:
                value = [(shaped - baseline[advantage]).flatten()[row].item()] * len(places)
            expected += value
            found += batch["advantages"][row][mask].tolist()
    wanted_values = np.array(expected)
    if advantage != "rloo":
        wanted_values = (wanted_values - wanted_values.mean()) / wanted_values.std()
    np.testing.assert_allclose(found, wanted_values, rtol=1e-3, atol=1e-4)
    assert log["kl"] == pytest.approx(np.mean(divergences), rel=1e-3)


def test_rewards_scaled_over_the_step(tmp_path, monkeypatch):
    batches, asked, _ = first_rollout(tmp_path, monkeypatch, scale_rewards="batch")
    every = torch.cat([rewards for _, rewards in asked])
    for batch, (_, rewards) in zip(batches, asked, strict=True):
        groups = rewards.view(-1, 4)
        value = (groups - groups.mean(1, keepdim=True)) / (every.std() + 1e-4)
        torch.testing.assert_close(
            batch["advantages"].double(),
            value.flatten()[:, None] * batch["known"],
            rtol=1e-5,
            atol=1e-6,
        )


# ---- sampling and shaping ------------------------------------------------------------------------


def of_some(completions: list[str], *, good: list[str], **_: Any) -> list[float]:
    """The rows of prompts() that say which digit is good; the others are all alike."""
    found = wanted(completions)
    return [0.0 if digit is None else each for each, digit in zip(found, good, strict=True)]


def test_groups_that_are_all_alike_are_replaced(tmp_path, monkeypatch):
    some = type("of_some", (Named,), {"function": staticmethod(of_some)})
    monkeypatch.setitem(REWARDS, "of_some", some)
    batches, asked, log = first_rollout(
        tmp_path, monkeypatch, rewards=["of_some"], dynamic_sampling=8, num_generations=3
    )
    assert len(asked) > len(batches)  # some were generated anew
    assert log["groups/alike"] == 0
    for batch in batches:
        assert batch["advantages"].any(1).view(-1, 3).any(1).all()
        assert (batch["weights"] > 0).all()


def test_groups_that_stay_alike_do_not_count(tmp_path, monkeypatch):
    batches, asked, log = first_rollout(
        tmp_path, monkeypatch, rewards=["same"], dynamic_sampling=2, entropy_weight=0.5
    )
    assert len(asked) == 2 * (1 + 2)
    assert log["groups/alike"] == 1
    assert log["loss"] == log["grad_norm"] == 0  # not even the entropy's
    assert not any(batch["weights"].any() for batch in batches)


def test_long_completions_are_worth_less(tmp_path, monkeypatch):
    _, asked, log = first_rollout(
        tmp_path, monkeypatch, rewards=["same"], overlong_buffer=5, overlong_penalty=2.0
    )
    for written, rewards in asked:
        tokens = np.array([len(answer.completion_ids) for answer in written])
        np.testing.assert_allclose(rewards, 0.5 - 2.0 * tokens / 5)
    assert log["rewards/overlong"] == pytest.approx(log["reward"] - 0.5)


# ---- several steps per rollout -------------------------------------------------------------------

FAMILY: dict[str, dict[str, Any]] = {
    "dapo": {"epsilon_high": 0.28, "dynamic_sampling": 1, "overlong_buffer": 2, "beta": 0.1},
    "gspo": {"loss": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-2},
    "cispo": {"loss": "cispo", "entropy_weight": 0.01},
    "sapo": {"loss": "sapo", "scale_rewards": "batch"},
    "reinforce++": {"advantage": "reinforce_plus_plus", "beta": 0.01, "kl_in_reward": True},
}


@pytest.mark.parametrize("name", FAMILY)
def test_reward_rises(tmp_path, name):
    made, reference = loaded(model()), loaded(model())
    stage = grpo(num_iterations=2, num_generations=8, **FAMILY[name])
    how = {"max_steps": 16, "logging_steps": 4, "learning_rate": 1e-2}
    run, result = run_stage(tmp_path, made, stage, reference=reference, **how)
    rewards = [each["reward"] for each in logs_of(run)]
    assert rewards[-1] > rewards[0] + 0.1
    assert (result.steps, result.tokens) == (16, logs_of(run)[-1]["tokens"])


@pytest.mark.parametrize("name", FAMILY)
def test_four_passes_of_one_prompt_are_one_of_four(tmp_path, name):
    stage = grpo(num_iterations=2, **FAMILY[name])
    (one, one_weights), (four, four_weights) = one_by_one_and_at_once(tmp_path, stage)
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(one_weights, four_weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_resumed_between_steps_on_the_same_completions(tmp_path, how):
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    settings |= {
        "max_steps": 8,
        "logging_steps": 1,
        "save_total_limit": 100,
        "evals": {"it": prompts(3)},
    }

    def train(folder, **others):
        made, reference = adapted(how, 0.2), adapted(how)
        stage = grpo(num_iterations=3, **FAMILY["dapo"])
        return run_stage(tmp_path / folder, made, stage, reference=reference, **others, **settings)[
            0
        ]

    whole = train("whole", save_steps=5)
    kept = checkpoints(tmp_path / "whole" / "checkpoints")
    # max_steps is rounded up to 9; completions are kept where they will be trained on again
    assert [path.name for path in kept] == ["step-5", "step-9"]
    assert [(path / "stage-0.json").exists() for path in kept] == [True, False]
    first = prompts_run(tmp_path / "parts")
    with pytest.raises(Stopped, match="at step 5 of 9"):
        train("parts", stop=stop_after(5), run=first)
    resumed = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    second = train("parts", checkpoint=resumed, save_steps=5)
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-9" for name in ("whole", "parts")))
