"""Asynchronous rewards, and time limits."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prompts_setup import REWARDS, Named, own_rewards, prompts_run, run_stage
from test_grpo import grpo
from training_setup import loaded, logs_of, model

from tunewright import RunError, hookimpl
from tunewright.events import Notice
from tunewright.types import RewardRequest
from tunewright_hf.training import rewards
from tunewright_hf.training.reward_calls import score_all

__all__ = ["own_rewards"]  # a fixture
pytestmark = pytest.mark.usefixtures("own_rewards")
released = threading.Event()


def hangs(completions: list[str], **_: Any) -> list[float]:
    released.wait()
    return [1.0 for _ in completions]


def raises_a_timeout(completions: list[str], **_: Any) -> list[float]:
    raise TimeoutError("of its own")


async def forever(completions: list[str], **_: Any) -> list[float]:
    await asyncio.Event().wait()
    return [1.0 for _ in completions]


class Rendezvous:
    """Two asynchronous rewards of which neither ends before the other has begun."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    async def __call__(self, completions: list[str], **_: Any) -> list[float]:
        await asyncio.to_thread(self.barrier.wait, 30)
        return [2.0 for _ in completions]


class Asynchronous(Named):
    """An asynchronous hook."""

    @hookimpl
    async def score(self, run: Any, request: RewardRequest) -> list[float | None]:
        await asyncio.sleep(0)
        return [float(len(text)) or None for text in request.completions]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    for function in (hangs, raises_a_timeout):
        made = type(function.__name__, (Named,), {"function": staticmethod(function)})
        monkeypatch.setitem(REWARDS, function.__name__, made)
    monkeypatch.setitem(REWARDS, "Asynchronous", Asynchronous)
    released.clear()
    yield
    released.set()  # lets threads of rewards that hang end


def load(section: Any, *, from_command_line: bool = False) -> rewards.WeightedReward:
    return rewards.load(
        section, "", prompts_run(Path("no/run")), None, from_command_line=from_command_line
    )


def test_a_plugin_and_a_function_may_be_asynchronous(tmp_path):
    assert load("Asynchronous")(["ab", "", "abc"], {})[::2] == [2.0, 3.0]
    (tmp_path / "mine.py").write_text(
        "async def brief(completions, *, good, target, **columns):\n"
        "    return [target - len(text) for text in completions]\n"
    )
    section = {"name": f"{tmp_path}/mine.py:brief", "target": 5, "weight": 2}
    found = load(section, from_command_line=True)
    assert (found.name, found.needed, found.is_async) == ("brief", ("good",), True)
    assert found(["ab", "abc"], {"good": [1, 2]}) == [3.0, 2.0]


def test_asynchronous_rewards_run_together():
    """Each waits for the other; and both in a program with an event loop of its own, as a
    notebook."""
    meeting = Rendezvous()
    both = [
        rewards.WeightedReward(
            name, 1.0, lambda request: meeting(request.completions), is_async=True, time_limit=30
        )
        for name in ("one", "two")
    ]

    async def notebook() -> Any:
        return score_all(both, ["a"], {})

    assert asyncio.run(notebook()) == ([[2.0], [2.0]], [])


@pytest.mark.parametrize("name", ["hangs", "forever"])
def test_a_reward_that_hangs_ends_the_run_or_says_nothing(monkeypatch, name):
    if name == "forever":
        made = rewards.WeightedReward(
            name, 1.0, lambda request: forever(request.completions), is_async=True, time_limit=0.2
        )
    else:
        made = load({"name": name, "time_limit": 0.2})
    with pytest.raises(RunError, match=r"gave no numbers within its time limit of 0.2 s") as found:
        made(["a", "b"], {})
    assert found.value.place == f"reward {name}"
    made.late = "none"
    other = load("Asynchronous")
    (late, given), without = score_all([made, other], ["a", "bb"], {})
    assert str(late) == "[nan, nan]"
    assert (given, [each.name for each in without]) == ([1.0, 2.0], [name])
    # a call that never returned is not made again
    threads = threading.active_count()
    began = time.monotonic()
    assert score_all([made], ["a"], {})[1] == [made]
    assert threading.active_count() <= threads
    assert name == "forever" or time.monotonic() - began < 30


def test_a_timeout_of_the_rewards_own_is_its_failure():
    with pytest.raises(RunError, match="fails: TimeoutError: of its own"):
        load({"name": "raises_a_timeout", "time_limit": 30})(["a"], {})


def test_training_goes_on_without_a_late_reward(tmp_path):
    both = ["wanted", {"name": "hangs", "time_limit": 0.1, "late": "none"}]
    run, _ = run_stage(tmp_path, loaded(model()), grpo(rewards=both), max_steps=1)
    said = [event.message for event in run.events if isinstance(event, Notice)]
    assert any(
        "reward hangs gave no numbers within its time limit of 0.1 s" in each for each in said
    )
    assert logs_of(run)[0]["rewards/wanted"] == logs_of(run)[0]["reward"]


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"time_limit": 0}, "time_limit of reward wanted is 0: expected seconds"),
        ({"time_limit": "1 s"}, "is '1 s': expected seconds"),
        (
            {"time_limit": 1, "late": "never"},
            "`late` of reward wanted is 'never': expected error or",
        ),
        ({"late": "none"}, "does nothing without its time_limit"),
    ],
)
def test_limits_that_mean_nothing_are_refused(section, problem):
    with pytest.raises(ValueError, match=problem):
        grpo(rewards=[{"name": "wanted", **section}])
