"""Tests of every optimizer: it learns, says what it costs, and goes on where it was."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunewright.registry import Entry
from tunewright_conformance import measure
from tunewright_conformance.bench import on_bench
from tunewright_conformance.dataset import messages_stage
from tunewright_conformance.refusals import InARecipe, Refusals, check_refused, with_plugin
from tunewright_conformance.toy import (
    an_optimizer,
    backward,
    changed,
    deep,
    distances,
    in_training_mode,
    step,
    toy,
    values,
    wide,
)
from tunewright_conformance.trial import check_resumed, go, loss_of, merged, recipe


class TestOptimizer(Refusals):
    kinds = ("optimizer",)
    anywhere = Refusals.anywhere | {"test_refuses_what_cannot_work_in_the_backward_pass"}

    #: at which it learns a quadratic in thirty steps
    learning_rate: float = 0.02
    #: relative, between state_bytes and what is measured
    bytes_tolerance: float = 0.01

    @pytest.fixture
    def make(self, entry: Entry, options: dict[str, Any]) -> Iterator[Any]:
        """make(model, weight_decay=0.0, …): an optimizer over all parameters, in training mode."""

        def made(model: Any, weight_decay: float = 0.0, **more: Any) -> Any:
            return an_optimizer(entry, options, model, self.learning_rate, weight_decay, **more)

        import torch

        with torch.device("cuda" if self.needs_gpu else "cpu"):
            yield made

    def test_covers_every_parameter(self, make: Any) -> None:
        """Every parameter is in exactly one group."""
        model = toy()
        optimizer = make(model)
        held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())

    def test_learning_rates(self, make: Any) -> None:
        """The first group has the recipe's learning rate, and a parameter's own factor is kept."""
        model = toy()
        optimizer = make(model, learning_rate_scales={"2.weight": 16.0})
        assert optimizer.param_groups[0]["lr"] == self.learning_rate
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        scaled = model.get_parameter("2.weight")
        assert rates.pop(id(scaled)) == 16 * self.learning_rate
        assert set(rates.values()) == {self.learning_rate}

    def test_falls_on_a_quadratic(self, make: Any) -> None:
        """Thirty steps bring every parameter nearer to what minimises a quadratic."""
        model = toy()
        before = distances(model)
        optimizer = make(model)
        for _ in range(30):
            step(model, optimizer)
        after = distances(model)
        assert {name for name in before if after[name] >= before[name]} == set()
        assert sum(after.values()) < 0.7 * sum(before.values())

    def test_weight_decay(self, make: Any) -> None:
        """With gradients of 0, matrices shrink, and biases and norms stay."""
        import torch

        model = toy()
        before = values(model)
        optimizer = make(model, weight_decay=0.1)
        for _ in range(2):  # the first may only set up a state
            sum(0 * parameter.sum() for parameter in model.parameters()).backward()
            optimizer.step()
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                assert torch.equal(parameter, before[name]), f"{name} decays"
            else:
                assert parameter.norm() < before[name].norm(), f"{name} does not decay"

    def test_without_a_gradient(self, make: Any) -> None:
        """A parameter that a backward pass did not reach stays as it is, and the others move."""
        model = toy()
        before = values(model)
        optimizer = make(model)
        for _ in range(2):
            optimizer.zero_grad()
            (model[0].weight ** 2).sum().backward()
            optimizer.step()
        moved = {name for name in before if changed({name: before[name]}, model)}
        assert moved == {"0.weight"}

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_state_bytes(
        self, entry: Entry, options: dict[str, Any], make: Any, dtype: str
    ) -> None:
        """The state of all parameters takes as many bytes as state_bytes says."""
        import torch

        model = wide().to(getattr(torch, dtype))
        optimizer = make(model)
        for _ in range(2):
            step(model, optimizer)
        plugin = on_bench(entry, **options).plugin
        said = sum(plugin.state_bytes(tuple(each.shape), dtype) for each in model.parameters())
        kept = {key: each for key, each in optimizer.state_dict().items() if key != "param_groups"}
        # tables that all parameters share may be left out
        assert measure.bytes_in(kept) == pytest.approx(said, rel=self.bytes_tolerance, abs=2048)

    def test_state_round_trip(self, make: Any, tmp_path: Path) -> None:
        """Saved as checkpoints are and loaded again, it makes the same next steps, bit for bit."""
        import torch

        from tunewright_hf.checkpoints.folder import load_state, save_state

        model = toy()
        optimizer = make(model)
        for _ in range(3):
            step(model, optimizer)
        save_state(optimizer.state_dict(), tmp_path, "optimizer")
        twin = copy.deepcopy(model)
        resumed = make(twin)
        resumed.load_state_dict(load_state(tmp_path, "optimizer"))
        in_training_mode(resumed)
        for _ in range(3):
            step(model, optimizer)
            step(twin, resumed)
        for name, value in model.state_dict().items():
            assert torch.equal(value, twin.state_dict()[name]), (
                f"{name} goes another way after loading"
            )

    def test_modes(self, make: Any) -> None:
        """An optimizer with modes has both train() and eval(): eval() gives other weights, and
        after train() training goes on as if nothing had been. Each may be called twice."""
        import torch

        model, twin = toy(), toy()
        optimizer, unswitched = make(model), make(twin)
        there = hasattr(optimizer, "train"), hasattr(optimizer, "eval")
        assert there[0] == there[1], "it has one of train() and eval()"
        if not all(there):
            pytest.skip("it has no modes")
        for _ in range(2):
            for _ in range(3):
                step(model, optimizer)
                step(twin, unswitched)
            trained = values(model)
            optimizer.eval()
            evaluated = values(model)
            optimizer.eval()
            assert not changed(evaluated, model)
            assert changed(trained, model), "eval() changes nothing"
            assert all(bool(value.isfinite().all()) for value in evaluated.values())
            optimizer.train()
            optimizer.train()
            torch.testing.assert_close(values(model), values(twin), atol=1e-5, rtol=1e-5)

    def test_when_it_updates(self, entry: Entry, options: dict[str, Any], make: Any) -> None:
        """Parameters move in the backward pass where steps_in_backward says so, and only there;
        else only in step()."""
        says, model = in_backward(entry, options), toy()
        optimizer = make(model)
        step(model, optimizer)
        optimizer.zero_grad()
        before = values(model)
        backward(model)
        moved, before = changed(before, model), values(model)
        optimizer.step()
        assert (moved, changed(before, model)) == (says, not says)

    def test_never_holds_all_gradients(
        self, entry: Entry, options: dict[str, Any], make: Any
    ) -> None:
        """An optimizer that updates in the backward pass holds at most half of the gradients at a
        time, and none after it."""
        if not in_backward(entry, options):
            pytest.skip("it updates after the backward pass")
        model = deep()
        optimizer = make(model)
        held: list[int] = []
        parameters = list(model.parameters())

        def look(_: Any) -> None:
            held.append(sum(p.grad.nbytes for p in parameters if p.grad is not None))

        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(look)
        step(model, optimizer)
        assert max(held) <= sum(p.nbytes for p in parameters) / 2
        assert all(parameter.grad is None for parameter in parameters)

    def test_refuses_what_cannot_work_in_the_backward_pass(
        self, entry: Entry, options: dict[str, Any]
    ) -> None:
        """If it updates in the backward pass, `recipe check` refuses accumulation, clipping and
        fp16."""
        if not in_backward(entry, options):
            pytest.skip("it updates after the backward pass")
        right = self.given({"training": {"max_grad_norm": 0}})
        for wrong in (
            {"training": {"gradient_accumulation_steps": 2}},
            {"training": {"max_grad_norm": 1.0}},
            {"training": {"precision": "fp16"}},
        ):
            (section,) = wrong
            check_refused(
                entry, options, merged(right, wrong), f"{section}.{next(iter(wrong[section]))}"
            )


class TestOptimizerInARun(InARecipe):
    """Trainings of a tiny model with all its weights."""

    kinds = ("optimizer",)

    #: of the training; its other fields may be set in `sections`
    learning_rate_of_run: float = 5e-3
    #: share of the first loss that the run comes down to
    falls_to: float = 0.8

    @pytest.fixture
    def asked(self, entry: Entry, options: dict[str, Any]) -> Iterator[Any]:
        """asked(folder, rows, training fields …): a recipe. Runs have one thread: equal bits."""
        import torch

        def write(folder: Path, count: int, **training: Any) -> dict[str, Any]:
            sections = with_plugin(entry, options, self.given())
            fields = {**sections.pop("training", {}), **training}
            rate = {"learning_rate": self.learning_rate_of_run}
            stage = {"name": messages_stage()}
            return recipe(stage, "messages", folder, count, sections, **{**rate, **fields})

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield write
        torch.set_num_threads(threads)

    def test_loss_falls(self, asked: Any, tmp_path: Path) -> None:
        """A dozen passes over a dozen simple rows bring the loss down to `falls_to`."""
        trial = go(asked(tmp_path, 12, epochs=12))
        assert sum(trial.losses[-3:]) / 3 < self.falls_to * trial.losses[0]

    def test_resume(self, asked: Any, tmp_path: Path) -> None:
        """Stopped and resumed, it ends with the same bits as without: weights, the optimizer's
        state, and that of its callbacks."""
        settings = {"max_steps": 7, "save_steps": 7, "per_device_train_batch_size": 2}
        whole = go(asked(tmp_path / "whole", 10, **settings))
        again = asked(tmp_path / "stopped", 10, **settings)
        check_resumed(whole, go(again, stop_at=4), go(again, resume=True))

    def test_checkpoint_holds_all_that_is_trained(
        self, entry: Entry, options: dict[str, Any], asked: Any, tmp_path: Path
    ) -> None:
        """A checkpoint holds every trained tensor, whichever block is trained at that moment, and
        without modes the result is the same."""
        import torch

        from tunewright_hf.checkpoints.folder import load_state

        trial = go(asked(tmp_path, 10, max_steps=5, save_steps=5))
        has_modes = hasattr(an_optimizer(entry, options, toy()), "eval")
        kept, result = load_state(trial.last_checkpoint(), "weights"), trial.weights()
        assert trial.result is not None
        if trial.result.saves == "adapter":
            pytest.skip("the result has PEFT's names")
        assert not result.keys() - kept.keys()
        if not has_modes:
            assert not [name for name in result if not torch.equal(result[name], kept[name])]

    def test_result_is_what_was_evaluated(self, asked: Any, tmp_path: Path) -> None:
        """The saved model has the loss that the last evaluation said: an optimizer with modes is in
        the mode for it, both times."""
        given = asked(tmp_path, 12, max_steps=12)
        given["eval_data"] = {"it": given["data"]}
        trial = go(given)
        assert trial.result is not None
        if trial.result.saves == "adapter":
            pytest.skip("the result is an adapter")
        found = loss_of(given, str(trial.result.path))
        assert trial.evaluated[-1].metrics["loss"] == pytest.approx(found, rel=1e-3)


def in_backward(entry: Entry, options: dict[str, Any]) -> bool:
    """Whether it updates inside the backward pass with these options."""
    return bool(on_bench(entry, **options).plugin.steps_in_backward)
