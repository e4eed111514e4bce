"""PPO: its numbers by hand, that it learns, and that what should make no difference makes none."""

import numpy as np
import pytest
import torch
from prompts_setup import own_rewards, run_stage
from test_resume import no_pickle
from training_setup import loaded, logs_of, model

from tunewright_ppo import Ppo
from tunewright_ppo.losses import gae, policy_loss, steered, value_loss
from tunewright_ppo.training import PpoTrainer

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_rewards")


def ppo(**options) -> Ppo:
    return Ppo(
        Ppo.Options(
            **{"rewards": ["wanted"], "max_new_tokens": 5, "ppo_epochs": 2, "beta": 0.0, **options}
        ),
        "ppo",
    )


# ---- numbers -------------------------------------------------------------------------------------


def test_gae():
    """Two tokens of an answer, between a prompt and padding: 1 - 0.2 = 0.8, and 0.9·0.2 - 0.5 +
    0.9·0.5·0.8 = 0.04."""
    known = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    rewards = torch.tensor([[0.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    values = torch.tensor([[9.0, 0.5, 0.2, 9.0], [0.5, 9.0, 9.0, 9.0]])
    expected = torch.tensor([[0.0, 0.04, 0.8, 0.0], [1.5, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(gae(rewards, values, known, 0.9, 0.5), expected)


def test_policy_loss():
    """Changes that move the ratio farther than 0.2 from 1 get no gradient; changes that bring it
    back do."""
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    loss = policy_loss(ratios, advantages, 0.2)
    torch.testing.assert_close(loss, torch.tensor([-1.2, 1.5, -0.5, 0.8, -2.2]))
    loss.sum().backward()
    assert ratios.grad.tolist() == [0, 1, -1, 0, -2]


def test_value_loss():
    """0.5 × the squared distance from the return, or that of the value moved by at most 0.2,
    whichever is larger."""
    values, old, returns = (
        torch.tensor([1.0, 0.1, 1.0]),
        torch.zeros(3),
        torch.tensor([1.0, 1.0, -1.0]),
    )
    torch.testing.assert_close(
        value_loss(values, old, returns, 0.2), torch.tensor([0.5 * 0.64, 0.5 * 0.81, 2.0])
    )


def test_steered():
    """By at most a fifth of the share of the horizon that has gone by: 5 nats where 4 are wanted
    are 0.2 too many."""
    assert steered(0.1, 4.4, 4.0, 0.5) == pytest.approx(0.1 * 1.05)
    assert steered(0.1, 5.0, 4.0, 0.5) == steered(0.1, 99.0, 4.0, 0.5) == pytest.approx(0.11)
    assert steered(0.1, 0.0, 4.0, 0.5) == pytest.approx(0.09)


@pytest.mark.parametrize(("target", "rises"), [(0.01, True), (100.0, False)])
def test_beta_is_steered(tmp_path, target, rises):
    """Of 4 answers to a rollout and a horizon of 8, by a tenth after each: the policy is far from
    its reference."""
    reference = model()
    with torch.no_grad():
        reference.lm_head.weight.mul_(-20)
    stage = ppo(beta=0.1, kl_target=target, kl_horizon=8)
    run, _ = run_stage(
        tmp_path, loaded(model()), stage, reference=loaded(reference), max_steps=6, logging_steps=1
    )
    betas = [line["beta"] for line in logs_of(run) if "beta" in line]  # not of steps on old answers
    assert betas == pytest.approx(
        [0.1 * (1.1 if rises else 0.9) ** rollout for rollout in range(3)]
    )
    with pytest.raises(ValueError, match="kl_target needs a beta above 0"):
        ppo(beta=0.0, kl_target=1.0)


def watch(monkeypatch) -> list:
    """The rollouts of trainings from now on, as they are trained on, with the answers that they are
    made of."""
    seen = []
    answers, whiten = PpoTrainer.answers, PpoTrainer.normalize_advantages

    def watched_answers(self, *given):
        self.watched = answers(self, *given)
        return self.watched

    def watched_whiten(self, rollout):
        before = [dict(batch) for batch in rollout]
        whiten(self, rollout)
        seen.append((before, rollout, *self.watched))

    monkeypatch.setattr(PpoTrainer, "answers", watched_answers)
    monkeypatch.setattr(PpoTrainer, "normalize_advantages", watched_whiten)
    return seen


def test_a_rollout(tmp_path, monkeypatch):
    """The first one, whose values are 0: with gamma and lambda 1, what a token is worth is the
    reward of the answer minus beta × the log-ratios from this token on. Log-probabilities are from
    transformers' own logits."""
    seen, made, reference = watch(monkeypatch), model(), model()
    with torch.no_grad():
        reference.lm_head.weight.mul_(-20)
    run, _ = run_stage(
        tmp_path,
        loaded(made),
        ppo(beta=0.1, gae_lambda=1.0),
        reference=loaded(reference),
        learning_rate=1e-12,
        max_steps=2,
        logging_steps=1,
    )
    ((before,), (batch,), written, scores) = seen[0]
    every, kl = [], []
    for row, (answer, score) in enumerate(zip(written, scores, strict=True)):
        ids = torch.tensor([answer.prompt_ids + answer.completion_ids])
        places = torch.arange(len(answer.prompt_ids), ids.shape[1])
        with torch.no_grad():
            mine, other = (
                each(input_ids=ids).logits[0].log_softmax(-1)[places - 1, ids[0, places]]
                for each in (made, reference)
            )
        behind = (mine - other).numpy()
        expected = score.item() - 0.1 * behind[::-1].cumsum()[::-1]
        assert before["known"][row].nonzero().flatten().tolist() == (places - 1).tolist()
        np.testing.assert_allclose(
            before["advantages"][row][places - 1], expected, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(before["logps"][row][places - 1], mine, rtol=1e-4, atol=1e-5)
        every.extend(expected)
        kl.append(behind.mean())
    known = before["known"] > 0
    assert not before["values"].any()
    assert torch.equal(before["returns"], before["advantages"])
    whitened = (np.array(every) - np.mean(every)) / np.std(every)
    np.testing.assert_allclose(batch["advantages"][known], whitened, rtol=1e-3, atol=1e-4)
    first, second = logs_of(run)
    assert first["kl"] == pytest.approx(np.mean(kl), rel=1e-4)
    assert first["loss/value"] == pytest.approx(0.5 * np.mean(np.square(every)), rel=1e-4)
    assert first["loss/policy"] == pytest.approx(0, abs=1e-5)
    assert first["loss"] == pytest.approx(0.1 * first["loss/value"], rel=1e-3)
    assert "kl" not in second  # which trained on the same answers
    assert second["loss"] == pytest.approx(first["loss"], abs=1e-4)


def test_the_critic_learns_what_to_expect(tmp_path, monkeypatch):
    """Of a policy that does not move."""
    seen, made = watch(monkeypatch), loaded(model().requires_grad_(False))
    same = {"rewards": [{"name": "short", "longest": 5}]}  # -1 for every answer of 5 tokens
    run_stage(
        tmp_path,
        made,
        ppo(value_clip_range=10.0, value_weight=1.0, **same),
        max_steps=40,
        learning_rate=0.02,
    )
    errors = [
        ((batch["returns"] - batch["values"]).square().sum() / batch["known"].sum()).item()
        for (batch,), *_ in seen
    ]
    assert np.mean(errors[-5:]) < 0.3 * errors[0]
