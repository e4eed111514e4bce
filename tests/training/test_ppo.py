"""PPO: its numbers by hand, that it learns, and that what should make no difference makes none."""

import numpy as np
import pytest
import torch
from prompts_setup import own_rewards, prompts, prompts_run, run_stage
from safetensors.torch import load_file
from test_grpo import adapted
from test_pairs_training import weights
from test_resume import assert_same_state, no_pickle
from training_setup import SIZE, loaded, logs_of, model, stop_after

from tunewright import RunError
from tunewright.errors import Stopped
from tunewright.recipe import Training
from tunewright_hf.batching.batch_sampler import Batches
from tunewright_hf.batching.repeated_sampler import Repeated
from tunewright_hf.checkpoints.folder import checkpoints, latest_checkpoint
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


# ---- it learns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "freeze", "lora"])
def test_reward_rises_and_only_what_it_is_to_train_moves(tmp_path, how):
    made = adapted(how)
    with torch.no_grad():
        # else layers below the head have little say
        made.model.get_output_embeddings().weight.mul_(10)
    before = weights(made)
    trained = {name for name, each in made.model.named_parameters() if each.requires_grad}
    rate = {"full": 1e-2, "freeze": 3e-2, "lora": 5e-2}[how]
    run, result = run_stage(
        tmp_path,
        made,
        ppo(),
        prompts(32),
        max_steps=20,
        learning_rate=rate,
        logging_steps=4,
        per_device_train_batch_size=32,
    )
    rewards = [each["reward"] for each in logs_of(run)]
    assert rewards[-1] > rewards[0] + 0.15
    assert weights(made).keys() == before.keys()  # the critic is taken out
    assert {
        name for name, each in weights(made).items() if not torch.equal(each, before[name])
    } == trained
    assert (result.steps, result.tokens) == (20, logs_of(run)[-1]["tokens"])
    saved = load_file(result.path / f"{'adapter_' if how == 'lora' else ''}model.safetensors")
    assert not [name for name in saved if "value_head" in name]
    head = load_file(tmp_path / "value_head.safetensors")
    assert {name: tuple(each.shape) for name, each in head.items()} == {
        "weight": (1, SIZE["hidden_size"]),
        "bias": (1,),
    }
    assert all(each.any() for each in head.values())


# ---- what makes no difference --------------------------------------------------------------------


def test_four_passes_of_one_prompt_are_one_of_four(tmp_path):
    found = []
    for name, size in {"4x1": 1, "1x4": 4}.items():
        made = loaded(model())
        how = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        run, _ = run_stage(tmp_path / name, made, ppo(beta=0.1), reference=loaded(model()), **how)
        found.append((logs_of(run), weights(made)))
    (one, one_weights), (four, four_weights) = found
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(one_weights, four_weights, rtol=1e-3, atol=1e-4)


def test_the_model_below_a_new_adapter_is_the_same_reference_as_a_second_model(tmp_path):
    one, _ = run_stage(tmp_path / "a", adapted("lora"), ppo(beta=0.5, reference="base"))
    two, _ = run_stage(tmp_path / "b", adapted("lora"), ppo(beta=0.5), reference=adapted("lora"))
    assert logs_of(one) == logs_of(two)


def test_another_model_may_be_the_reference(tmp_path):
    other = model()
    with torch.no_grad():
        other.lm_head.weight.mul_(-20)
    stage = ppo(beta=0.5, reference="some/model")
    assert stage.models == ("policy",)
    # which the run loads
    one, _ = run_stage(tmp_path / "a", loaded(model()), stage, reference=loaded(other))
    two, _ = run_stage(tmp_path / "b", loaded(model()), ppo(beta=0.5), reference=loaded(other))
    assert logs_of(one) == logs_of(two)
    assert logs_of(one)[0]["kl"] > 0.1


@pytest.mark.parametrize("how", ["full", "lora"])
def test_resumed_in_a_rollout_equals_uninterrupted(tmp_path, how):
    settings = {
        "evals": {"it": prompts(3)},
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    }
    # 7 is rounded up to 8
    settings |= {
        "max_steps": 7,
        "logging_steps": 1,
        "save_total_limit": 100,
    }

    def train(folder, **others):
        made, reference = adapted(how, 0.2), adapted(how)
        return run_stage(
            tmp_path / folder, made, ppo(beta=0.1), reference=reference, **others, **settings
        )

    whole, result = train("whole", save_steps=3)
    assert result.steps == 8
    found = checkpoints(tmp_path / "whole" / "checkpoints")
    assert [path.name for path in found] == ["step-3", "step-6", "step-8"]
    # completions are kept within a rollout only
    assert [(path / "stage-0.json").exists() for path in found] == [True, False, False]
    first = prompts_run(tmp_path / "parts", loads=lambda **_: adapted(how))
    with pytest.raises(Stopped, match="at step 3 of 8"):
        train("parts", stop=stop_after(3), run=first)
    second, _ = train(
        "parts", checkpoint=latest_checkpoint(tmp_path / "parts" / "checkpoints"), save_steps=3
    )
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-8" for name in ("whole", "parts")))


def test_evaluation_leaves_training_alone(tmp_path):
    evals = {"it": prompts(7)}
    made = [loaded(model()) for _ in range(2)]
    run, _ = run_stage(
        tmp_path / "a", made[0], ppo(), evals=evals, eval_steps=1, per_device_eval_batch_size=2
    )
    alone, _ = run_stage(tmp_path / "b", made[1], ppo())
    assert logs_of(run) == logs_of(alone)
    assert all(torch.equal(each, weights(made[1])[name]) for name, each in weights(made[0]).items())


# ---- batches -------------------------------------------------------------------------------------


def test_repeated_batches():
    training = Training(
        batching="random", per_device_train_batch_size=2, gradient_accumulation_steps=2, epochs=2
    )
    once, three = Batches([1] * 7, training), Repeated([1] * 7, training, repeats=3)
    passes = list(once)
    assert len(passes) == 7
    # three steps of two passes, each three times; the last pass is too little for a step
    assert list(three) == [
        rows for step in range(3) for rows in passes[2 * step : 2 * step + 2] * 3
    ]
    assert (len(three), three.steps) == (18, 9)
    assert [three.epoch_at(step) for step in (0, 1, 3, 4)] == [
        once.epoch_at(step) for step in (0, 1, 1, 2)
    ]
    assert Repeated([1] * 7, training.model_copy(update={"max_steps": 4}), repeats=3).steps == 6
    with pytest.raises(RunError, match="1 rows are too few for a step"):
        Repeated([1], training.model_copy(update={"epochs": 1}), repeats=3)
