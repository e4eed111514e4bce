"""The training loop with optimizers of any kind: with modes, with states that cannot be held, that
switch blocks, and that update inside the backward pass."""

import pytest
import torch
from loop_setup import go, run_with
from test_resume import LENGTH, assert_same_state
from training_setup import loaded, model, rows, run_training, stop_after

from tunewright import RunError, events
from tunewright.errors import Stopped
from tunewright_hf.checkpoints.folder import checkpoints, latest_checkpoint
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.training.causal_lm import CausalTrainer

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
