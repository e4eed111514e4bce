"""Tests of every environment: whatever a model writes is answered, and each episode is its own."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunewright.registry import Entry
from tunewright.types import Message, ToolCall
from tunewright_conformance.bench import on_bench
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.reward import ODD
from tunewright_conformance.suite import Suite
from tunewright_grpo.environment import Environment, Observation, ResetRequest, Start, StepRequest

_ANSWERS = ("tool", "user")


class TestEnvironment(Suite):
    kinds = ("environment",)

    #: columns that it reads, by name, of a row
    columns: Mapping[str, Any] = {}
    #: turns of the model, which it answers: texts, or calls {name, arguments}
    turns: Sequence[str | Mapping[str, Any]] = ("42",)

    @pytest.fixture
    def environment(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> Any:
        made = Played(on_bench(entry, **options), FakeRun(tmp_path), dict(self.columns))
        yield made
        made.plugin.close()

    def test_tools(self, environment: "Played") -> None:
        """Tools are JSON schemas of functions with names of their own, and the same again."""
        tools = environment.plugin.tools()
        assert json.loads(json.dumps(tools)) == tools == environment.plugin.tools()
        names = [tool["function"]["name"] for tool in tools]
        assert len(set(names)) == len(names)
        for tool in tools:
            assert tool["type"] == "function"
            assert isinstance(tool["function"].get("description", ""), str)
            assert tool["function"].get("parameters", {"type": "object"})["type"] == "object"

    def test_an_episode(self, environment: "Played") -> None:
        """Turns are answered by messages of tools or users; each call has a result; the reward is
        a finite number or None."""
        start = environment.reset()
        assert isinstance(start, Start)
        assert isinstance(start.text, str)
        for turn in self.turns:
            message = said(turn)
            found = environment.step(start.episode, message)
            if not found.messages:
                break
            assert {each.role for each in found.messages} <= {*_ANSWERS}
            results = [each for each in found.messages if each.role == "tool"]
            assert len(results) in (0, len(message.tool_calls))
            assert all(isinstance(each.content, str) for each in found.messages)
        reward = environment.plugin.finish(start.episode)
        assert reward is None or math.isfinite(reward)

    def test_again(self, environment: "Played") -> None:
        """With the same seed and turns, the same observations and reward; columns stay as they
        were."""
        kept = copy.deepcopy(environment.columns)
        assert self.played(environment) == self.played(environment)
        assert environment.columns == kept

    def test_episodes_are_apart(self, environment: "Played") -> None:
        """Episodes that go on in turn are those that go on alone."""
        alone = self.played(environment)
        starts = [environment.reset() for _ in range(2)]
        seen: list[list[Any]] = [[start.text] for start in starts]
        for turn in self.turns:
            for start, own in zip(starts, seen, strict=True):
                own.append(written(environment.step(start.episode, said(turn))))
        for start, own in zip(starts, seen, strict=True):
            own.append(environment.plugin.finish(start.episode))
        assert seen == [alone, alone]

    def test_odd_turns(self, environment: "Played") -> None:
        """Whatever a model writes is answered."""
        for odd in ODD:
            start = environment.reset()
            assert isinstance(environment.step(start.episode, said(odd)), Observation)
            environment.plugin.finish(start.episode)

    def test_wrong_calls(self, environment: "Played") -> None:
        """A call of a tool that there is not, or with other arguments, is answered."""
        names = [tool["function"]["name"] for tool in environment.plugin.tools()]
        for name in (*names, "no_such_tool"):
            start = environment.reset()
            call = {"name": name, "arguments": {"no_such_argument": [None, {"a": "b"}]}}
            found = environment.step(start.episode, said(call))
            assert all(isinstance(each.content, str) for each in found.messages)
            assert found.messages or not names
            environment.plugin.finish(start.episode)

    def test_finishes_at_once(self, environment: "Played") -> None:
        """An episode may end before its first turn was answered."""
        reward = environment.plugin.finish(environment.reset().episode)
        assert reward is None or math.isfinite(reward)

    def played(self, environment: "Played") -> list[Any]:
        """Observations of an episode of the turns, and its reward."""
        start = environment.reset()
        seen: list[Any] = [start.text]
        seen += [written(environment.step(start.episode, said(turn))) for turn in self.turns]
        return [*seen, environment.plugin.finish(start.episode)]


class Played:
    """An environment as the stage calls it."""

    def __init__(self, caller: Any, run: FakeRun, columns: dict[str, Any]) -> None:
        self.plugin: Environment = caller.plugin
        self.columns = columns
        self._caller, self._run = caller, run

    def reset(self, seed: int = 7) -> Start:
        request = ResetRequest(dict(self.columns), seed)
        found: Start = self._caller.call("reset", run=self._run, request=request)
        return found

    def step(self, episode: Any, message: Message) -> Observation:
        request = StepRequest(episode, message, str(message.content))
        found: Observation = self._caller.call("step", run=self._run, request=request)
        return found


def said(turn: str | Mapping[str, Any]) -> Message:
    """A turn of the model."""
    if isinstance(turn, str):
        return Message("assistant", turn)
    return Message("assistant", tool_calls=[ToolCall(turn["name"], dict(turn["arguments"]))])


def written(observation: Observation) -> list[tuple[str, Any]]:
    """Its messages, to be compared."""
    return [(each.role, each.content) for each in observation.messages]
