"""The training loop: what callbacks may do in it, what it says, and what ends it."""

import math
from types import SimpleNamespace

import pytest
import torch
from loop_setup import go, messages
from test_resume import LENGTH
from training_setup import loaded, model, rows

from tunewright import RunError
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.training.callbacks import TrainingCallback
from tunewright_hf.training.causal_lm import CausalTrainer

# ---- callbacks -----------------------------------------------------------------------------------


class Remembering(TrainingCallback):
    def __init__(self, name):
        self.name, self.calls, self.count = name, [], 0

    def on_step_begin(self, loop):
        self.calls.append(("begin", loop.step))

    def on_gradients_ready(self, loop):
        assert all(each.grad is not None for _, each in loop.trained())
        self.calls.append(("gradients", loop.step))

    def on_step_end(self, loop):
        self.count += 1
        assert all(each.grad is not None for _, each in loop.trained())
        self.calls.append(("end", loop.step))

    def on_evaluate(self, loop, metrics):
        assert metrics["it"]["loss"] > 0
        self.calls.append(("evaluate", loop.step))

    def on_save(self, loop, folder):
        assert (folder / "manifest.json").exists()
        self.calls.append(("save", loop.step))

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_callbacks_of_model_and_optimizer(tmp_path):
    made, optimizers = loaded(model()), [Remembering("optimizer")]
    made.model.training_callbacks = [Remembering("model")]

    def build(parameters, lr):
        built = torch.optim.SGD(parameters, lr)
        built.training_callbacks = optimizers
        return built

    go(tmp_path, build, made, evals={"it": rows(3)}, max_steps=2, eval_steps=2, save_steps=2)
    expected = [("begin", 0), ("gradients", 0), ("end", 1), ("begin", 1), ("gradients", 1)]
    expected += [("end", 2), ("evaluate", 2), ("save", 2)]
    assert made.model.training_callbacks[0].calls == optimizers[0].calls == expected
    kept = load_state(tmp_path / "checkpoints/step-2", "others")["callbacks"]
    assert [each for each in kept if each] == [{"count": 2}, {"count": 2}]
    later = loaded(model())
    later.model.training_callbacks = [Remembering("model")]
    optimizers[:] = [Remembering("optimizer")]
    found = tmp_path / "checkpoints/step-2"
    go(tmp_path, build, later, evals={"it": rows(3)}, max_steps=3, checkpoint=found)
    assert later.model.training_callbacks[0].count == optimizers[0].count == 3


# ---- what is not finite --------------------------------------------------------------------------


@pytest.fixture
def spoiled(monkeypatch):
    """Let the losses of these steps (1 is the first) be NaN."""
    steps: set[int] = set()
    own = CausalTrainer.compute_loss

    def compute_loss(self, forward, batch, scale):
        loss = own(self, forward, batch, scale)
        return loss * math.nan if self.step + 1 in steps else loss

    monkeypatch.setattr(CausalTrainer, "compute_loss", compute_loss)
    return steps


def test_steps_that_are_not_finite_are_left_out_and_said(tmp_path, spoiled):
    spoiled |= {2, 3}
    run, result, trained = go(tmp_path, torch.optim.AdamW, **LENGTH)
    assert result.steps == 12
    assert all(each.isfinite().all() for each in trained.parameters())
    assert messages(run) == ["step 2: loss is nan: the update is left out"]


def test_too_many_in_a_row_end_the_run_and_name_the_last_checkpoint(tmp_path, spoiled):
    spoiled |= {7, 8, 9}
    with pytest.raises(RunError) as found:
        go(tmp_path, torch.optim.AdamW, save_steps=2, **LENGTH)
    assert str(found.value).startswith("step 9: loss is nan, 3 times in a row; last finite")
    assert str(tmp_path / "checkpoints" / "step-8") in str(found.value)
    assert "lower training.learning_rate" in str(found.value)
    assert not (tmp_path / "model").exists()
    weights = load_state(tmp_path / "checkpoints" / "step-8", "weights")
    assert all(each.isfinite().all() for each in weights.values())


def test_how_many_is_a_setting(tmp_path, spoiled):
    spoiled |= {1}
    with pytest.raises(RunError, match=r"step 1: loss is nan, once; no checkpoint was saved"):
        go(tmp_path, torch.optim.AdamW, max_bad_steps=1)


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    class Diverging(torch.optim.SGD):
        def step(self, closure=None):
            super().step()
            self.param_groups[0]["turn"] = self.param_groups[0].get("turn", 0) + 1
            if self.param_groups[0]["turn"] == 4:
                with torch.no_grad():
                    self.param_groups[0]["params"][0][0, 0] = math.inf

    with pytest.raises(RunError, match=r"step 4: trained weights are not finite; .*step-3"):
        go(tmp_path / "a", Diverging, save_steps=1)
    assert not (tmp_path / "a/checkpoints/step-4").exists()
    with pytest.raises(RunError, match="trained weights are not finite; no checkpoint"):
        go(tmp_path / "b", Diverging, max_steps=4)
    assert not (tmp_path / "b/model").exists()


# ---- what is said --------------------------------------------------------------------------------


def test_a_warm_up_longer_than_the_run_is_reported(tmp_path):
    run, *_ = go(tmp_path, torch.optim.SGD, warmup_steps=10)
    assert "training.warmup_steps is 10 and the stage has 6 steps" in messages(run)[0]
    run, *_ = go(tmp_path / "other", torch.optim.SGD, warmup_steps=0.5)
    assert not messages(run)


def test_epochs_that_are_one_step_are_reported(tmp_path):
    run, result, _ = go(tmp_path, torch.optim.SGD, data=rows(4), max_steps=None, epochs=1.0)
    assert result.steps == 1
    assert messages(run)[0].startswith("training.epochs: 1 of 4 rows is 1 optimizer step")


# ---- fp16 ----------------------------------------------------------------------------------------


def test_fp16_leaves_out_updates_that_overflow():
    """The scaler as on a GPU: gradients are unscaled before they are clipped, and a step with an
    overflow lowers the scale and changes nothing."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    sharding = NoSharding()
    accelerator = SimpleNamespace(scaler=scaler, num_processes=1)
    sharding.prepare(torch.nn.Linear(1, 1), optimizer, accelerator, None)
    for value, norm, updated in ((1.0, 4.0, True), (math.inf, math.inf, False)):
        scaler.scale((parameter * 2 * value).sum()).backward()
        assert sharding.clip([parameter], 2.0) == pytest.approx(norm)
        assert sharding.update() == (updated, None)
        sharding.free_gradients()
        assert parameter.detach().tolist() == pytest.approx([-1.0] * 4)
    assert scaler.get_scale() == 4.0
    scaler.scale(parameter.sum()).backward()
    sharding.clip([parameter], 0.0)
    sharding.skip_update()  # what comes after it can unscale again
    sharding.clip([parameter], 0.0)
