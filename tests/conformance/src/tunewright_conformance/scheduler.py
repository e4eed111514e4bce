"""Tests of every scheduler: warm-up, peak and end where they are said to be, and a state
that continues."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tunewright import RecipeError
from tunewright.registry import Entry, load
from tunewright.types import SchedulerRequest
from tunewright_conformance.bench import on_bench
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.suite import Suite

PEAK = 0.1  # learning rate of the first group; the second has twice as much
SENSELESS = (-1, 0, 1e-9, 0.5, 1, 2, 1e9)  # of which an option refuses some, and handles the rest


class TestScheduler(Suite):
    kinds = ("scheduler",)

    #: learning rate after the last step, as a share of the peak; None: it is not said
    ends_at: float | None = None

    def test_warm_up(self, entry: Entry, options: dict[str, Any]) -> None:
        """The learning rate rises over warmup_steps, from at most half the peak to the peak."""
        found = rates(entry, options, 20, 4)
        assert found[0] <= PEAK / 2
        assert found[4] == pytest.approx(PEAK)
        assert found[:5] == sorted(set(found[:5])), "it does not rise at each step of the warm-up"

    def test_peak(self, entry: Entry, options: dict[str, Any]) -> None:
        """Without warm-up the first step has the peak, and none has more."""
        found = rates(entry, options, 20, 0)
        assert found[0] == pytest.approx(PEAK)
        assert max(found) <= PEAK * (1 + 1e-6)
        assert max(rates(entry, options, 20, 4)) <= PEAK * (1 + 1e-6)

    def test_end(self, entry: Entry, options: dict[str, Any]) -> None:
        """After the last step the learning rate is what `ends_at` says, with warm-up and
        without."""
        if self.ends_at is None:
            pytest.skip("it does not say where it ends: set ends_at")
        for warmup in (0, 4):
            last = rates(entry, options, 20, warmup)[20]
            assert last == pytest.approx(self.ends_at * PEAK, abs=1e-9)

    @pytest.mark.parametrize("warmup", [0, 1, 2, 9])
    @pytest.mark.parametrize("total", [0, 1, 2, 9])
    def test_any_number_of_steps(
        self, entry: Entry, options: dict[str, Any], total: int, warmup: int
    ) -> None:
        """However few steps there are, and some steps past the end, the learning rate is a finite
        number of at least 0."""
        check_usable(rates(entry, options, total, warmup))

    def test_groups_keep_their_share(self, entry: Entry, options: dict[str, Any]) -> None:
        """A group of parameters with twice the learning rate has twice as much at every step."""
        optimizer, scheduler = make(entry, options, 20, 4)
        for _ in range(20):
            one, two = (group["lr"] for group in optimizer.param_groups)
            assert two == pytest.approx(2 * one)
            advance(optimizer, scheduler)

    def test_state(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> None:
        """Saved as checkpoints are and loaded again, it goes on with the same learning rates, to
        the bit."""
        from tunewright_hf.checkpoints.folder import load_state, save_state

        for stop in (2, 9):  # in the warm-up, and after it
            optimizer, scheduler = make(entry, options, 20, 4)
            for _ in range(stop):
                advance(optimizer, scheduler)
            folder = tmp_path / str(stop)
            folder.mkdir()
            save_state(scheduler.state_dict(), folder, "scheduler")
            save_state(optimizer.state_dict(), folder, "optimizer")
            again, resumed = make(entry, options, 20, 4)
            again.load_state_dict(load_state(folder, "optimizer"))
            resumed.load_state_dict(load_state(folder, "scheduler"))
            for _ in range(20 - stop):
                advance(optimizer, scheduler)
                advance(again, resumed)
                assert [g["lr"] for g in again.param_groups] == [
                    g["lr"] for g in optimizer.param_groups
                ]

    def test_needs_total_steps(self, entry: Entry, options: dict[str, Any]) -> None:
        """A scheduler that claims not to depend on the number of steps does not: such a run may
        be resumed with more."""
        if load(entry).needs_total_steps:
            pytest.skip("it says that it does")
        assert rates(entry, options, 20, 4)[:20] == rates(entry, options, 40, 4)[:20]

    def test_senseless_options(self, entry: Entry, options: dict[str, Any]) -> None:
        """Numbers of the options that make no sense are refused; what is accepted gives learning
        rates that are finite and at least 0."""
        fields = load(entry).Options.model_fields
        names = [name for name, field in fields.items() if is_number(field.annotation)]
        for name, value in [(name, value) for name in names for value in SENSELESS]:
            try:
                found = rates(entry, {**options, name: value}, 20, 4)
            except (ValidationError, RecipeError):
                continue
            check_usable(found)


def is_number(annotation: Any) -> bool:
    """Whether an option may be a number, and is no yes or no."""
    from typing import get_args

    return bool({int, float} & {annotation, *get_args(annotation)})


def make(entry: Entry, options: dict[str, Any], total: int, warmup: int) -> tuple[Any, Any]:
    """An optimizer with two groups, and the plugin's scheduler over it."""
    import torch

    rows = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": [rows[0]], "lr": PEAK}, {"params": [rows[1]], "lr": 2 * PEAK}]
    optimizer = torch.optim.SGD(groups)
    request = SchedulerRequest(optimizer, total, warmup)
    return optimizer, on_bench(entry, **options).call(
        "build_scheduler", run=FakeRun(), request=request
    )


def advance(optimizer: Any, scheduler: Any) -> None:
    optimizer.step()
    scheduler.step()


def rates(entry: Entry, options: dict[str, Any], total: int, warmup: int) -> list[float]:
    """Learning rates of the first group: of each step, and of five after the last."""
    optimizer, scheduler = make(entry, options, total, warmup)
    found = []
    for _ in range(total + 5):
        found.append(float(optimizer.param_groups[0]["lr"]))
        advance(optimizer, scheduler)
    return found


def check_usable(found: list[float]) -> None:
    assert all(map(math.isfinite, found)), f"not finite: {found}"
    assert min(found) >= 0, f"negative: {found}"
