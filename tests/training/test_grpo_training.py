"""Training with grpo: it learns, and what makes no difference to it."""

import pytest
import torch
from prompts_setup import one_by_one_and_at_once, own_rewards, prompts, prompts_run, run_stage
from test_grpo import adapted, grpo
from test_pairs_training import weights
from test_resume import assert_same_state, no_pickle
from training_setup import loaded, logs_of, model, stop_after

from tunewright import RecipeError
from tunewright.errors import Stopped
from tunewright_hf.checkpoints.folder import latest_checkpoint

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_rewards")


@pytest.mark.parametrize("how", ["full", "freeze", "lora"])
def test_reward_rises_and_only_what_it_is_to_train_moves(tmp_path, how):
    made = adapted(how)
    with torch.no_grad():
        made.model.get_output_embeddings().weight.mul_(
            10
        )  # else layers below the head have little say
    before = weights(made)
    trained = {name for name, each in made.model.named_parameters() if each.requires_grad}
    rate = {"full": 1e-2, "freeze": 3e-2, "lora": 5e-2}[how]
    run, result = run_stage(
        tmp_path, made, grpo(num_generations=8), max_steps=12, learning_rate=rate, logging_steps=3
    )
    rewards = [each["reward"] for each in logs_of(run)]
    assert rewards[0] < 0.65
    assert rewards[-1] > rewards[0] + 0.15
    assert {
        name for name, each in weights(made).items() if not torch.equal(each, before[name])
    } == trained
    assert (result.steps, result.tokens) == (12, logs_of(run)[-1]["tokens"])
    assert (result.path / f"{'adapter_' if how == 'lora' else ''}model.safetensors").exists()


# ---- what makes no difference --------------------------------------------------------------------


def test_four_passes_of_one_prompt_are_one_of_four(tmp_path):
    (one, one_weights), (four, four_weights) = one_by_one_and_at_once(tmp_path, grpo(beta=0.1))
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(one_weights, four_weights, rtol=1e-4, atol=1e-5)


def test_evaluation_leaves_training_alone(tmp_path):
    evals = {"it": prompts(7), "seen": prompts(3)}
    made = [loaded(model()) for _ in range(3)]
    run, result = run_stage(
        tmp_path / "a", made[0], grpo(), evals=evals, eval_steps=1, per_device_eval_batch_size=2
    )
    _, other = run_stage(
        tmp_path / "b", made[1], grpo(), evals=evals, eval_steps=4, per_device_eval_batch_size=7
    )
    alone, _ = run_stage(tmp_path / "c", made[2], grpo())
    assert logs_of(run) == logs_of(alone)
    assert all(torch.equal(each, weights(made[2])[name]) for name, each in weights(made[0]).items())
    assert result.metrics["it_loss"] == -result.metrics["it_reward"]
    assert result.metrics == pytest.approx(other.metrics)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_resumed_equals_uninterrupted(tmp_path, how):
    settings = {
        "evals": {"it": prompts(3)},
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    }
    settings |= {"max_steps": 6, "logging_steps": 2, "save_total_limit": 100}

    def train(folder, **others):
        made, reference = adapted(how, 0.2), adapted(how)
        return run_stage(
            tmp_path / folder, made, grpo(beta=0.1), reference=reference, **others, **settings
        )[0]

    whole = train("whole", save_steps=6)
    first = prompts_run(tmp_path / "parts")
    with pytest.raises(Stopped):
        train("parts", stop=stop_after(4), run=first)
    second = train(
        "parts", checkpoint=latest_checkpoint(tmp_path / "parts" / "checkpoints"), save_steps=6
    )
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-6" for name in ("whole", "parts")))


# ---- the reference -------------------------------------------------------------------------------


def test_a_second_model_and_the_model_below_a_new_adapter_are_the_same_reference(tmp_path):
    base, start = grpo(beta=0.5, reference="base"), grpo(beta=0.5)
    assert (base.models, start.models, grpo().models) == (
        ("policy",),
        ("policy", "reference"),
        ("policy",),
    )
    one, _ = run_stage(tmp_path / "a", adapted("lora"), base)
    two, _ = run_stage(tmp_path / "b", adapted("lora"), start, reference=adapted("lora"))
    assert logs_of(one) == logs_of(two)
    assert logs_of(one)[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert logs_of(one)[-1]["kl"] > 1e-4


def test_more_beta_stays_closer(tmp_path):
    found = {}
    for beta in (0.01, 10.0):
        run, _ = run_stage(
            tmp_path / str(beta),
            loaded(model()),
            grpo(beta=beta),
            reference=loaded(model()),
            max_steps=8,
        )
        found[beta] = logs_of(run)[-1]["kl"]
    assert 0 < found[10.0] < found[0.01] / 2


def test_what_does_not_fit_is_refused_at_once(tmp_path):
    with pytest.raises(RecipeError, match="no adapter to leave out"):
        run_stage(tmp_path, loaded(model()), grpo(beta=0.1, reference="base"))
    with pytest.raises(RecipeError, match="answers are not written yet"):
        run_stage(tmp_path, loaded(model()), grpo(), batching="token_budget", tokens_per_batch=64)
    with pytest.raises(ValueError, match="no installed plugin gives the reward 'wantd'"):
        grpo(rewards=["wantd"])
    with pytest.raises(ValueError, match="is '2', not a number"):
        grpo(rewards=[{"name": "wanted", "weight": "2"}])
