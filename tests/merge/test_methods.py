"""Merge methods against their papers' formulas, worked out by hand on small tensors."""

import math

import pytest
import torch
from torch import Tensor

from tunewright_merge.methods import Settings, dropped, merged, slerp, trimmed

BASE = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0])
#: the changes of three models, which disagree on the sign of the first and the last value
CHANGES = torch.tensor(
    [[4.0, 0.1, -3.0, 0.0, 1.0], [2.0, 5.0, -0.2, 0.3, -4.0], [-5.0, 1.0, -2.0, 0.1, 0.2]]
)


def call(method: str, weights: list[float], **more: float) -> Tensor:
    settings = Settings(method, weights, **more)  # type: ignore[arg-type]
    return merged([BASE + each for each in CHANGES], BASE, settings, index=0)


def test_linear_is_the_weighted_mean() -> None:
    found = merged(list(CHANGES), None, Settings("linear", [1, 1, 2]), 0)
    assert torch.allclose(found, (CHANGES[0] + CHANGES[1] + 2 * CHANGES[2]) / 4)


def test_task_arithmetic_adds_scaled_changes() -> None:
    found = call("task_arithmetic", [1, 0.5, -1], scale=0.4)
    expected = BASE + 0.4 * (CHANGES[0] + 0.5 * CHANGES[1] - CHANGES[2])
    assert torch.allclose(found, expected)


def test_ties_by_hand() -> None:
    # density 0.6 of five values keeps the three largest of each model:
    #   [4, 0, -3, 0, 1], [2, 5, 0, 0, -4], [-5, 1, -2, 0, 0]; their sums are 1, 6, -5, 0, -3
    # means of the values with the sign of the sum: (4+2)/2, (5+1)/2, (-3-2)/2, 0, -4
    found = call("ties", [1, 1, 1], density=0.6)
    assert torch.allclose(found - BASE, torch.tensor([3.0, 3.0, -2.5, 0.0, -4.0]))


def test_ties_by_hand_with_weights_and_lambda() -> None:
    # weights 1, 1, 2: weighted values [4, 0, -3, 0, 1], [2, 5, 0, 0, -4], [-10, 2, -4, 0, 0];
    # sums are -4, 7, -7, 0, -3; sums of those that agree, by their weights:
    # -10/2, (5+2)/(1+2), (-3-4)/(1+2), 0, -4/1
    found = call("ties", [1, 1, 2], density=0.6, scale=0.5)
    expected = torch.tensor([-5.0, 7 / 3, -7 / 3, 0.0, -4.0])
    assert torch.allclose(found - BASE, 0.5 * expected)


def test_dare_without_drops_is_task_arithmetic() -> None:
    assert torch.equal(
        call("dare_linear", [1, 2, 1], density=1), call("task_arithmetic", [1, 2, 1])
    )


def test_dare_ties_by_hand() -> None:
    # nothing is dropped; the sums are 1, 6.1, -5.2, 0.4, -2.8; of those that agree, the sum
    found = call("dare_ties", [1, 1, 1], density=1)
    assert torch.allclose(found - BASE, torch.tensor([6.0, 6.1, -5.2, 0.4, -4.0]))


def test_dare_drops_a_share_and_keeps_the_mean() -> None:
    change = torch.full((200, 100), 2.0)
    found = dropped(change, "a seed", 0.3)
    kept = found != 0
    assert torch.allclose(found[kept], torch.tensor(2 / 0.3))
    assert abs(float(kept.float().mean()) - 0.3) < 0.02  # four standard deviations are 0.013
    assert torch.equal(found, dropped(change, "a seed", 0.3))
    assert not torch.equal(found, dropped(change, "another", 0.3))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_goes_along_the_circle(t: float) -> None:
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    expected = torch.tensor([[2 * math.cos(t * math.pi / 2), 2 * math.sin(t * math.pi / 2)]])
    assert torch.allclose(slerp(first, second, t), expected, atol=1e-6)


def test_slerp_of_parallel_or_empty_tensors_is_linear() -> None:
    one = torch.tensor([1.0, 2.0])
    assert torch.allclose(slerp(one, 3 * one, 0.25), 1.5 * one)
    assert torch.allclose(slerp(torch.zeros(2), one, 0.25), 0.25 * one)
    found = merged([one, torch.tensor([2.0, -1.0])], None, Settings("slerp", [1, 3]), 0)
    assert torch.allclose(found, slerp(one, torch.tensor([2.0, -1.0]), 0.75))


def test_trimmed_keeps_the_largest() -> None:
    change = torch.tensor([[1.0, -4.0], [3.0, 2.0]])
    assert trimmed(change, 0.5).tolist() == [[0.0, -4.0], [3.0, 0.0]]
    assert trimmed(change, 0.1).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert trimmed(change, 1.0) is change
