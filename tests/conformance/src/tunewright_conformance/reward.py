"""Tests of every reward: a number for each completion, whatever stands beside it."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunewright import TunewrightError
from tunewright.registry import Entry
from tunewright.types import LoadedModel, RewardRequest
from tunewright_conformance.bench import on_bench
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.suite import Suite

COMPLETIONS = (
    "42",
    "The answer is 42.",
    "<think>6 times 7</think>42",
    '{"answer": 42}',
    "```json\n[42]\n```",
    "No idea, sorry. " * 20,
)
ODD = ("", " \n\t", "\x00\x1b[31m", "漢字 \U0001f600 ü", "</think>" * 9, "a" * 20_000, "{[(\\")


class TestReward(Suite):
    kinds = ("reward",)

    #: completions that it gives different numbers for
    completions: Sequence[str] = COMPLETIONS
    #: columns that it reads, by name, each as long as completions; `prompts` is there in any case
    columns: Mapping[str, Sequence[Any]] = {}

    @pytest.fixture
    def policy(self) -> LoadedModel | None:
        """The model that is trained. Subclasses may give one."""
        return None

    @pytest.fixture
    def request_(self, options: dict[str, Any], policy: LoadedModel | None) -> RewardRequest:
        """The completions with their columns."""
        prompts = [f"Question {number}?" for number in range(len(self.completions))]
        columns = {name: list(column) for name, column in self.columns.items()}
        return RewardRequest(list(self.completions), {"prompts": prompts, **columns}, policy)

    @pytest.fixture
    def run(self, tmp_path: Path) -> FakeRun:
        """The run that it is called in. Subclasses may give it what the reward asks of it."""
        return FakeRun(tmp_path)

    @pytest.fixture
    def score(self, entry: Entry, options: dict[str, Any], run: FakeRun) -> Any:
        caller = on_bench(entry, **options)
        yield lambda request: caller.call("score", run=run, request=request)
        caller.plugin.close()

    def test_a_number_for_each(self, score: Any, request_: RewardRequest) -> None:
        """As many numbers as completions, each finite, or None where it has nothing to say; and not
        the same for all."""
        found = score(request_)
        assert len(found) == len(request_.completions)
        for value in found:
            assert value is None or math.isfinite(value)
        assert len(set(found)) > 1, "give it `completions` and `columns` that it tells apart"

    def test_order(self, score: Any, request_: RewardRequest) -> None:
        """The numbers follow the completions: turned round, they come turned round."""
        assert_same(score(turned(request_)), score(request_)[::-1])

    def test_one_at_a_time(self, score: Any, request_: RewardRequest) -> None:
        """A completion is worth the same alone as among others."""
        alone = [value for each in singly(request_) for value in score(each)]
        assert_same(alone, score(request_))

    def test_again(self, score: Any, request_: RewardRequest) -> None:
        """Asked twice, it says the same, and leaves completions and columns as they were."""
        kept = copy.deepcopy((request_.completions, request_.columns))
        assert_same(score(request_), score(request_))
        assert (request_.completions, request_.columns) == kept

    def test_odd_completions(self, score: Any, request_: RewardRequest) -> None:
        """Whatever a model writes gets a finite number or None."""
        for odd in ODD:
            request = RewardRequest([odd] * len(request_.completions), request_.columns)
            request.policy = request_.policy
            found = score(request)
            assert len(found) == len(request.completions)
            assert all(value is None or math.isfinite(value) for value in found), repr(odd)

    def test_further_columns(self, score: Any, request_: RewardRequest) -> None:
        """Columns that it does not read make no difference."""
        expected = score(request_)
        request_.columns["a_column_of_others"] = [object() for _ in request_.completions]
        assert_same(score(request_), expected)

    def test_columns_are_read(self, score: Any, request_: RewardRequest) -> None:
        """Each of `columns` matters: without it the reward is refused, or other numbers come. An
        error names the reward."""
        expected = score(request_)
        for name in self.columns:
            without = {key: value for key, value in request_.columns.items() if key != name}
            request = RewardRequest(request_.completions, without, request_.policy)
            found, error = attempted(score, request)
            assert found != expected, f"column {name!r} makes no difference"
            assert not error or ("reward" in error and name in error), f"unclear: {error}"

    def test_in_a_stage(
        self,
        entry: Entry,
        options: dict[str, Any],
        run: FakeRun,
        request_: RewardRequest,
        score: Any,
    ) -> None:
        """Called as a stage calls it, with the columns of the rows, it gives the same; and what
        goes wrong is said with the reward's name."""
        from tunewright_hf.training import rewards

        section = {"name": entry.name, **example(entry, options)}
        policy: Any = request_.policy
        reward = rewards.load(section, "stage.rewards.0", run, policy, from_command_line=False)
        found = reward(request_.completions, request_.columns)
        expected = [math.nan if value is None else value for value in score(request_)]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
        _, error = attempted(reward, request_.completions, {})
        reward.plugin.close()
        assert not error or f"reward {entry.name}" in error, f"does not name the reward: {error}"


def example(entry: Entry, options: dict[str, Any]) -> dict[str, Any]:
    """The options as a recipe writes them, the examples of required ones among them."""
    options = on_bench(entry, **options).plugin.options.model_dump(mode="json", exclude_unset=True)
    return options


def attempted(call: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """The result of a call, or None and what its error says."""
    try:
        return call(*arguments), ""
    except TunewrightError as error:
        return None, str(error)


def turned(request: RewardRequest) -> RewardRequest:
    """The completions from the last to the first."""
    columns = {name: column[::-1] for name, column in request.columns.items()}
    return RewardRequest(request.completions[::-1], columns, request.policy)


def singly(request: RewardRequest) -> list[RewardRequest]:
    """A request for each completion."""
    return [
        RewardRequest(
            [text], {name: [column[n]] for name, column in request.columns.items()}, request.policy
        )
        for n, text in enumerate(request.completions)
    ]


def assert_same(found: list[float | None], expected: list[float | None]) -> None:
    """Equal but for the order of sums in a batch."""
    assert [value is None for value in found] == [value is None for value in expected]
    numbers = [value for value in expected if value is not None]
    assert [value for value in found if value is not None] == pytest.approx(
        numbers, rel=1e-5, abs=1e-6
    )
