"""The training loop: what optimizers, callbacks and adapters of any kind may do in it, and what
ends it."""

import math
from types import SimpleNamespace

import pytest
import torch
from test_resume import LENGTH, assert_same_state
from training_setup import a_run, loaded, model, rows, run_training, stop_after

from tunewright import RunError, events, hookimpl
from tunewright.errors import Stopped
from tunewright.plugin import Optimizer
from tunewright_hf.checkpoints.folder import checkpoints, latest_checkpoint
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.training.callbacks import TrainingCallback
from tunewright_hf.training.causal_lm import CausalTrainer


class Built(Optimizer):
    """An optimizer plugin that builds what it was given."""

    def __init__(self, build, in_backward=False) -> None:
        super().__init__(None, "built")
        self.build, self.steps_in_backward = build, in_backward

    @hookimpl
    def build_optimizer(self, request):
        return self.build([each for _, each in request.parameters], request.learning_rate)


def run_with(folder, build, in_backward=False, **facts):
    """A run with another optimizer."""
    return a_run(folder, plugins={"optimizer": Built(build, in_backward)}, **facts)


def go(folder, build, made=None, stop=lambda run: False, ranks=(0, 1), **settings):
    """(run, result, model), trained by the optimizer that `build` makes of parameters and rate.
    ranks: this one, and their number."""
    facts = {"rank": ranks[0], "world_size": ranks[1]}
    run, made = run_with(folder, build, **facts), made or loaded(model(dropout=0.2))
    _, result = run_training(
        folder, made, settings.pop("data", rows(30)), run=run, stop=stop, **settings
    )
    return run, result, made.model


def messages(run):
    return [event.message for event in run.events if isinstance(event, events.Notice)]


# ---- optimizers with modes -----------------------------------------------------------------------


class Averaging(torch.optim.SGD):
    """Trains one set of weights, and evaluates the mean of all so far, as schedule-free does."""

    def __init__(self, parameters, lr) -> None:
        super().__init__(parameters, lr)
        self.modes = ["train"]
        for group in self.param_groups:
            group["mode"] = "train"

    def _swap(self, mode):
        self.modes.append(mode)
        group = self.param_groups[0]
        if group["mode"] != mode:
            group["mode"] = mode
            with torch.no_grad():
                for each in group["params"]:
                    other = self.state[each]["other"]
                    kept = each.clone()
                    each.copy_(other)
                    other.copy_(kept)

    def eval(self):
        self._swap("eval")

    def train(self):
        self._swap("train")

    @torch.no_grad()
    def step(self, closure=None):
        assert self.param_groups[0]["mode"] == "train"
        super().step()
        for each in self.param_groups[0]["params"]:
            state = self.state[each]
            state.setdefault("count", 0)
            state["count"] += 1
            mean = state.setdefault("other", torch.zeros_like(each))
            mean.lerp_(each, 1 / state["count"])


def test_optimizers_with_modes_are_evaluated_and_exported_in_theirs(tmp_path, monkeypatch):
    made, optimizers, evaluated = loaded(model()), [], []

    def build(parameters, lr):
        optimizers.append(Averaging(parameters, lr))
        return optimizers[-1]

    own = CausalTrainer.evaluate_one

    def watched(self, name, data):
        evaluated.append(self.optimizer.param_groups[0]["mode"])
        return own(self, name, data)

    monkeypatch.setattr(CausalTrainer, "evaluate_one", watched)
    _, result, trained = go(
        tmp_path, build, made, evals={"it": rows(6, seed=4)}, eval_steps=2, save_steps=3
    )
    assert evaluated == ["eval"] * 3
    (optimizer,) = optimizers
    assert optimizer.param_groups[0]["mode"] == "eval"
    parameters = [each for _, each in trained.named_parameters()]
    assert not torch.equal(parameters[0], optimizer.state[parameters[0]]["other"])
    from transformers import AutoModelForCausalLM

    saved = dict(AutoModelForCausalLM.from_pretrained(result.path).named_parameters())
    for name, each in trained.named_parameters():
        assert torch.equal(saved[name], each)


def test_optimizers_with_modes_resume_bit_for_bit(tmp_path):
    settings = {**LENGTH, "evals": {"it": rows(6, seed=4)}, "eval_steps": 4}
    _, _, whole = go(tmp_path / "whole", Averaging, save_steps=12, **settings)
    with pytest.raises(Stopped):
        go(tmp_path / "parts", Averaging, stop=stop_after(5), **settings)
    found = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    _, _, parts = go(tmp_path / "parts", Averaging, checkpoint=found, save_steps=12, **settings)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)
    ends = [tmp_path / name / "checkpoints/step-12" for name in ("whole", "parts")]
    assert_same_state(*ends)


def test_the_best_of_an_optimizer_with_modes_is_what_was_evaluated(tmp_path):
    made = loaded(model())
    _, result, _ = go(
        tmp_path,
        Averaging,
        made,
        evals={"it": rows(6, seed=4)},
        eval_steps=2,
        load_best_model_at_end=True,
        greater_is_better=True,  # the loss falls: the first is the best
    )
    assert result.metrics["best_step"] == 2
    again = run_with(tmp_path / "again", torch.optim.SGD)
    from transformers import AutoModelForCausalLM

    saved = loaded(AutoModelForCausalLM.from_pretrained(result.path))
    _, evaluated = run_training(
        tmp_path / "again",
        saved,
        rows(30),
        run=again,
        evals={"it": rows(6, seed=4)},
        learning_rate=1e-20,
        max_steps=1,
    )
    assert evaluated.metrics["it_loss"] == pytest.approx(result.metrics["it_loss"], rel=1e-6)


# ---- states that cannot be held ------------------------------------------------------------------


class Unheld(torch.optim.SGD):
    """Keeps something in its state that is no data."""

    def step(self, closure=None):
        super().step()
        self.state[self.param_groups[0]["params"][0]]["thing"] = {1, 2}


def test_a_state_that_cannot_be_held_is_an_error_after_the_first_step(tmp_path):
    with pytest.raises(RunError, match=r"optimizer.*is a builtins.set, which a checkpoint cannot"):
        go(tmp_path, Unheld, stop=stop_after(1), **LENGTH)
    assert not (tmp_path / "checkpoints").exists()


# ---- optimizers that switch blocks ---------------------------------------------------------------


class Switching(torch.optim.SGD):
    """Trains one parameter at a time, and freezes the others. Which, its state knows."""

    def __init__(self, parameters, lr) -> None:
        super().__init__(parameters, lr, momentum=0.9)
        self.param_groups[0]["turn"] = 0
        self.switch()

    def switch(self):
        group = self.param_groups[0]
        for number, each in enumerate(group["params"]):
            each.requires_grad_(number == group["turn"] % len(group["params"]))

    def step(self, closure=None):
        super().step()
        self.param_groups[0]["turn"] += 1
        self.switch()

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.switch()


def test_a_checkpoint_holds_all_that_is_trained_whatever_is_frozen_now(tmp_path):
    _, _, whole = go(tmp_path / "whole", Switching, save_steps=6, **LENGTH)
    names = {name for name, _ in model().named_parameters()}
    for folder in checkpoints(tmp_path / "whole" / "checkpoints"):
        assert load_state(folder, "weights").keys() == names
    parts = tmp_path / "parts"
    with pytest.raises(Stopped):
        go(parts, Switching, stop=stop_after(6), **LENGTH)
    found = latest_checkpoint(parts / "checkpoints")
    _, _, resumed = go(parts, Switching, checkpoint=found, save_steps=6, **LENGTH)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert_same_state(*(tmp_path / name / "checkpoints/step-12" for name in ("whole", "parts")))


def test_a_checkpoint_holds_what_the_adapter_names(tmp_path):
    made = loaded(model())
    names = frozenset(name for name, _ in made.model.named_parameters() if "layers.0" in name)
    made.trained = names
    made.model.requires_grad_(False)
    for name, each in made.model.named_parameters():
        each.requires_grad_(name == min(names))
    run, _, _ = go(tmp_path, torch.optim.SGD, made, max_steps=1, save_steps=1)
    assert load_state(tmp_path / "checkpoints/step-1", "weights").keys() == names
    started = run.events[0]
    sizes = dict(model().named_parameters())
    assert started.trainable_parameters == sum(sizes[name].numel() for name in names)


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


# ---- updates inside the backward pass ------------------------------------------------------------


def test_updates_inside_the_backward_pass(tmp_path):
    """With plain SGD that updates every parameter as soon as its gradient exists."""

    class Inside(torch.optim.SGD):
        def __init__(self, parameters, lr):
            super().__init__(parameters, lr)
            for each in self.param_groups[0]["params"]:
                each.register_post_accumulate_grad_hook(self.update)

        def update(self, parameter):
            with torch.no_grad():
                parameter.sub_(parameter.grad, alpha=self.param_groups[0]["lr"])
            parameter.grad = None

        def step(self, closure=None):
            pass

    made, settings = loaded(model()), {"max_grad_norm": 0.0, "data": rows(30)}
    run, _ = run_training(
        tmp_path / "a", made, run=run_with(tmp_path / "a", Inside, True), **settings
    )
    _, _, plain = go(tmp_path / "b", torch.optim.SGD, loaded(model()), **settings)
    for one, other in zip(made.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    logs = [event.metrics for event in run.events if isinstance(event, events.Logged)]
    assert all("grad_norm" not in metrics for metrics in logs)


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
