"""Environments: what a model's turns are answered with, in episodes of several turns."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tunewright import Plugin, TunewrightError, hookimpl
from tunewright.types import Message, RunContext, ToolCall

__all__ = [
    "Environment",
    "Observation",
    "ResetRequest",
    "Start",
    "StepRequest",
    "ToolEnvironment",
]


@dataclass(slots=True)
class ResetRequest:
    """An episode that begins."""

    columns: dict[str, Any]  # of the row, by name
    seed: int  # the same for all completions of a prompt in a step, and when a run is repeated


@dataclass(slots=True)
class Start:
    """The begun episode."""

    episode: Any = None  # its state, which `step` and `finish` get
    text: str = ""  # what there is to be seen, added to the last message of the prompt


@dataclass(slots=True)
class StepRequest:
    """A turn of the model."""

    episode: Any
    message: Message  # thinking, text and tool calls
    text: str  # as it was generated, without its stop token


@dataclass(slots=True)
class Observation:
    """Messages that follow a turn: results of its tool calls, or a user's. None: the episode has
    ended."""

    messages: list[Message] = field(default_factory=list)


class Environment(Plugin):
    """Kind environment: answers the turns of episodes."""

    #: whether turns of different episodes may be answered at the same time, in threads
    concurrent: ClassVar[bool] = False

    def tools(self) -> list[dict[str, Any]]:
        """Tools that prompts offer, as OpenAI's JSON schemas."""
        return []

    def finish(self, episode: Any) -> float | None:
        """End an episode, however it ended, and return its reward; None: it gives none.

        Called once for each episode that was begun.
        """
        return None

    def close(self) -> None:
        """Release what the environment holds."""


class ToolEnvironment(Environment):
    """An environment of tools: an episode goes on for as long as the model calls them."""

    def call(self, name: str, arguments: dict[str, Any], episode: Any) -> str:
        """Return the result of a call of one of `tools`. An exception is a result, which the model
        reads; TunewrightErrors end the run."""
        raise NotImplementedError

    @hookimpl
    def reset(self, run: RunContext, request: ResetRequest) -> Start:
        return Start(request.columns)

    @hookimpl
    def step(self, run: RunContext, request: StepRequest) -> Observation:
        calls = request.message.tool_calls
        return Observation([self._result(call, request.episode) for call in calls])

    def _result(self, call: ToolCall, episode: Any) -> Message:
        known = [tool["function"]["name"] for tool in self.tools()]
        try:
            if call.name not in known:
                raise LookupError(f"there is no tool {call.name!r}, only {', '.join(known)}")
            text = self.call(call.name, call.arguments, episode)
        except TunewrightError:
            raise
        except Exception as error:
            text = f"error: {' '.join(str(error).split()) or type(error).__name__}"
        return Message("tool", text, tool_call_id=call.id, name=call.name)
