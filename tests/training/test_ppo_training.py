"""Training with ppo: it learns, and what makes no difference to it."""

import pytest
import torch
from prompts_setup import one_by_one_and_at_once, own_rewards, prompts, prompts_run, run_stage
from safetensors.torch import load_file
from test_grpo import adapted
from test_pairs_training import weights
from test_ppo import ppo
from test_resume import assert_same_state, no_pickle
from training_setup import SIZE, loaded, logs_of, model, stop_after

from tunewright import RunError
from tunewright.errors import Stopped
from tunewright.recipe import Training
from tunewright_hf.batching.batch_sampler import Batches
from tunewright_hf.batching.repeated_sampler import Repeated
from tunewright_hf.checkpoints.folder import checkpoints, latest_checkpoint

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_rewards")


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
    (one, one_weights), (four, four_weights) = one_by_one_and_at_once(tmp_path, ppo(beta=0.1))
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
