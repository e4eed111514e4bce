"""A run whose plugins write down what they are asked and told."""

import sys

import pytest

import kernel_fakes as fakes
from tunewright import check, run


@pytest.fixture
def train(tmp_path, install):
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    out = tmp_path / "runs" / "a"

    def _train(*overrides: str, recipe: str = fakes.RECIPE, **how):
        path = tmp_path / "r.yaml"
        path.write_text(recipe % out)
        return run.train(check.resolve(path, list(overrides)), **how)

    _train.out = out
    return _train


def calls() -> list:
    return [call for call in sys.modules["tw_mine"].CALLS if isinstance(call, tuple)]


def told() -> list[str]:
    return [call["event"] for call in sys.modules["tw_mine"].CALLS if isinstance(call, dict)]
