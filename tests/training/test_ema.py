"""EMA of trained weights: by the formula, in evaluations and the result, exact after resuming."""

import pytest
import torch
from accelerators_setup import asked, assert_same_weights, go, on_two_processes
from training_setup import model

from tunewright import check
from tunewright.events import Evaluated
from tunewright.source import RecipeProblems
from tunewright_ema.average import WeightAverage
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.training.stage_trainer import has_modes, set_mode

EMA = {"name": "ema", "decay": 0.7, "warmup": False}


class Loop:
    """What a callback reads of the training loop."""

    def __init__(self, step):
        self.step = step


def stepped(decay, warmup, steps, dtype=torch.float32):
    """An average over steps in which a parameter takes the values 1, 2, 3, …"""
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=dtype))
    average = WeightAverage([("p", parameter)], decay, warmup)
    for step in range(1, steps + 1):
        with torch.no_grad():
            parameter.fill_(float(step))
        average.on_step_end(Loop(step))
    return parameter, average


def test_average_by_hand():
    _, average = stepped(0.5, False, 3)  # 0.5, 1.25, 2.125
    assert average.state_dict()["average"]["p"].tolist() == [2.125] * 3
    _, average = stepped(0.999, True, 2)
    first = 9 / 11  # of the weights 1, with a decay of 2 / 11
    second = (3 / 12) * first + (9 / 12) * 2
    assert average.state_dict()["average"]["p"].tolist() == pytest.approx([second] * 3)
    _, average = stepped(0.1, True, 2)  # warm-up never raises the decay
    assert average.state_dict()["average"]["p"].tolist() == pytest.approx([1.89] * 3)


def test_raw_weights_come_back_bit_for_bit():
    parameter, average = stepped(0.9, False, 3, torch.bfloat16)
    optimizer = average.attached_to(torch.optim.SGD([parameter], lr=1.0))
    assert has_modes(optimizer)
    raw = parameter.detach().clone()
    set_mode(optimizer, training=False)
    set_mode(optimizer, training=False)  # twice is once
    assert parameter.tolist() == average.state_dict()["average"]["p"].bfloat16().tolist()
    assert not parameter.equal(raw)
    set_mode(optimizer, training=True)
    assert parameter.equal(raw)
    assert average.state_dict()["average"]["p"].dtype == torch.float32


def settings(adapter="full", **more):
    return {"adapter": adapter, "training": {"max_steps": 4, "save_steps": 1, **more}}


@pytest.mark.parametrize("adapter", ["full", {"name": "lora", "rank": 4}], ids=["full", "lora"])
def test_the_result_is_the_average_of_an_unchanged_training(tmp_path, adapter):
    plain = go(tmp_path / "plain", **settings(adapter, save_total_limit=9))
    averaged = go(tmp_path / "ema", EMA, **settings(adapter, save_total_limit=9))
    assert averaged.losses == plain.losses  # of training: by the raw weights
    steps = [
        load_state(plain.folder / f"run/checkpoints/step-{step}", "weights") for step in range(1, 5)
    ]
    end = load_state(averaged.folder / "run/checkpoints/step-4", "weights")
    kept = load_state(averaged.folder / "run/checkpoints/step-4", "others")["callbacks"][-1]
    first = load_state(averaged.folder / "run/checkpoints/step-1", "others")["callbacks"][-1]
    for name, raw in steps[-1].items():
        assert end[name].equal(raw)  # checkpoints hold the raw weights
        expected = first["average"][name].clone()
        for each in steps[1:]:
            expected.lerp_(each[name], 0.3)
        assert torch.allclose(kept["average"][name], expected, atol=1e-6)
    result = averaged.weights
    found = sum(
        tensor.equal(each) for tensor in result.values() for each in kept["average"].values()
    )
    assert found >= len(result)  # of an adapter, PEFT's names are others


def test_evaluations_have_the_average(tmp_path):
    held = {"held": [{"path": str(tmp_path / "ema/rows.jsonl")}]}
    slow = {"name": "ema", "decay": 0.999999, "warmup": False}  # stays as it began
    made = go(tmp_path / "ema", slow, eval_data=held, **settings(eval_steps=1))
    losses = [each.metrics["loss"] for each in made.events if isinstance(each, Evaluated)]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-4)
    assert made.losses[-1] < made.losses[0] - 0.01


@pytest.mark.parametrize("adapter", ["full", {"name": "lora", "rank": 4}], ids=["full", "lora"])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, adapter):
    whole = go(tmp_path / "whole", EMA, **settings(adapter))
    stopped = go(tmp_path / "parts", EMA, stop_at=2, **settings(adapter))
    resumed = go(tmp_path / "parts", EMA, resume=True, **settings(adapter))
    assert stopped.losses + resumed.losses == whole.losses
    assert_same_weights(resumed, whole)
    assert resumed.checkpoint(4) == whole.checkpoint(4)


def test_the_best_model_is_the_average_of_its_step(tmp_path):
    held = {"held": [{"path": str(tmp_path / "best/rows.jsonl")}]}
    asked_for = settings(
        eval_steps=1, load_best_model_at_end=True, learning_rate=0.5, save_total_limit=9
    )
    made = go(tmp_path / "best", EMA, eval_data=held, **asked_for)
    losses = {
        each.step: each.metrics["loss"] for each in made.events if isinstance(each, Evaluated)
    }
    best = min(losses, key=lambda step: losses[step])
    assert best < 4  # with such a learning rate it gets worse
    folder = made.folder / f"run/checkpoints/step-{best}"
    kept = load_state(folder, "others")["callbacks"][-1]["average"]
    for name, tensor in made.weights.items():
        assert tensor.equal(kept[name]), name


@pytest.mark.slow
def test_two_processes_have_the_same_average(tmp_path):
    import json

    one = go(tmp_path / "one", EMA, **settings())
    sections = settings(per_device_train_batch_size=2)
    two = on_two_processes(
        "accelerators_worker.py", tmp_path / "two", json.dumps([EMA]), json.dumps(sections)
    )
    for mine, right in zip(two, one.metrics, strict=True):
        assert mine == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"stage": {"name": "grpo", "rewards": ["length"]}}, "grpo trains on its own rollouts"),
        (
            {"optimizer": "schedule_free", "training": {"lr_scheduler_type": "constant"}},
            "schedule_free averages the weights itself",
        ),
        ({"accelerators": [EMA, "fsdp"]}, "ema averages whole weights, and fsdp shards them"),
        ({"accelerators": [EMA, "deepspeed"]}, "ema averages whole weights, and deepspeed"),
        ({"accelerators": [{"name": "ema", "decay": 1}]}, "decay"),
    ],
)
def test_refused(tmp_path, more, message):
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(asked(tmp_path, EMA) | more)


def test_a_checkpoint_of_another_model_is_refused():
    llama = model()
    average = WeightAverage(list(llama.named_parameters()), 0.9, True)
    from tunewright import RunError

    with pytest.raises(RunError, match="average of other weights"):
        average.load_state_dict({"average": {"p": torch.zeros(1)}})
