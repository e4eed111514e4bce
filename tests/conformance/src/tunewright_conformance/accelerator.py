"""Tests of every accelerator: the same training, and nothing left changed after it."""

from pathlib import Path
from typing import Any

import pytest

from tunewright.registry import Entry
from tunewright_conformance import patches
from tunewright_conformance.dataset import messages_stage
from tunewright_conformance.refusals import Refusals, with_plugin
from tunewright_conformance.trial import Trial, check_resumed, go, launch, recipe


class TestAccelerator(Refusals):
    kinds = ("accelerator",)

    #: relative distance of losses and weights from those without it; 0: equal to the bit
    tolerance: float = 0.0
    #: processes that it needs; the training without it has one, and the same global batch
    processes: int = 1
    #: whether its processes compute each batch together, so that it is that of one process
    shares_batches: bool = False

    @pytest.fixture
    def asked(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> Any:
        """asked(name, with_it, training fields …): a recipe that is run in a folder of this
        name."""

        def write(name: str, with_it: bool, **training: Any) -> dict[str, Any]:
            sections = self.given()
            if with_it:
                sections = with_plugin(entry, options, sections)
            split = with_it and not self.shares_batches
            size = 4 // self.processes if split else 4
            # batches by length are drawn for each process
            fields = {"per_device_train_batch_size": size, "batching": "random", "max_steps": 4}
            fields |= training | sections.pop("training", {})
            stage = {"name": messages_stage()}
            return recipe(stage, "messages", tmp_path / name, 8, sections, **fields)

        return write

    def test_same_training(self, asked: Any) -> None:
        """Losses, and the names and values of the result, are those of the training without it,
        within `tolerance`."""
        plain, with_it = go(asked("plain", False)), self.train(asked("with", True))
        assert len(plain.losses) == len(with_it.losses) == 4
        for loss, right in zip(with_it.losses, plain.losses, strict=True):
            assert abs(loss - right) <= self.tolerance * abs(right)
        weights, expected = with_it.weights(), plain.weights()
        assert weights.keys() == expected.keys()
        for name, value in expected.items():
            apart = float((weights[name] - value).norm())
            assert apart <= self.tolerance * float(value.norm()), f"{name} is {apart:.1e} away"

    def test_resume(self, asked: Any) -> None:
        """Stopped and resumed, it ends with the same bits as without."""
        self.skip_on_several()
        settings = {"max_steps": 5, "save_steps": 5}
        whole = go(asked("whole", True, **settings))
        again = asked("stopped", True, **settings)
        check_resumed(whole, go(again, stop_at=3), go(again, resume=True))

    def test_leaves_nothing_patched(self, asked: Any) -> None:
        """After a training functions of libraries, environment and settings of torch are what they
        were before."""
        self.skip_on_several()
        go(asked("plain", False, max_steps=1))
        before = patches.state()
        go(asked("with", True, max_steps=1))
        assert patches.changed(before) == []

    def test_leaves_nothing_patched_when_stopped(self, asked: Any) -> None:
        """The same after a training that was interrupted."""
        self.skip_on_several()
        go(asked("plain", False, max_steps=1))
        before = patches.state()
        go(asked("with", True, max_steps=3), stop_at=1)
        assert patches.changed(before) == []

    def train(self, asked: dict[str, Any]) -> Trial:
        return go(asked) if self.processes == 1 else launch(asked, self.processes)

    def skip_on_several(self) -> None:
        if self.processes > 1:
            pytest.skip("it needs several processes, which end with the training")
