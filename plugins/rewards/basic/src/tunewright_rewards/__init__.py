"""Rewards from a completion's text, an HTTP endpoint, or a trained reward model."""

import json
import re
from typing import Any

from pydantic import Field, field_validator

from tunewright import PluginOptions, RunError, hookimpl
from tunewright.plugin import Reward
from tunewright.types import RewardRequest, RunContext

_THINKING = re.compile(r"\A.*</think>", re.DOTALL)


class ExactMatch(Reward):
    """1 if the completion after the thinking equals the row's column, ignoring leading and trailing
    white space; else 0."""

    class Options(PluginOptions):
        column: str = "answer"
        """Column with the right answer."""

    def columns(self) -> tuple[str, ...]:
        return (self.options.column,)

    @hookimpl
    def score(self, run: RunContext, request: RewardRequest) -> list[float]:
        column = self.options.column
        if column not in request.columns:
            there = ", ".join(sorted(request.columns))
            raise RunError(
                f"the rows have no column {column!r}, only {there}",
                place=f"reward {self.name}",
                hint="set its option `column`",
            )
        given = [_THINKING.sub("", text).strip() for text in request.completions]
        wanted = [str(each).strip() for each in request.columns[column]]
        return [float(text == each) for text, each in zip(given, wanted, strict=True)]


class Format(Reward):
    """1 if the whole completion matches a regular expression; else 0."""

    class Options(PluginOptions):
        pattern: str = Field(examples=["<think>.*</think>.*"])
        """Regular expression, in which `.` is any character."""

        @field_validator("pattern")
        @classmethod
        def _compiles(cls, pattern: str) -> str:
            try:
                re.compile(pattern, re.DOTALL)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
            return pattern

    @hookimpl
    def score(self, run: RunContext, request: RewardRequest) -> list[float]:
        form = re.compile(self.options.pattern, re.DOTALL)
        return [float(form.fullmatch(text.strip()) is not None) for text in request.completions]


class Length(Reward):
    """0 for a completion of `target` characters, down to -1 for one that is empty or at least twice
    as long."""

    class Options(PluginOptions):
        target: int = Field(gt=0, examples=[200])
        """Characters."""

    @hookimpl
    def score(self, run: RunContext, request: RewardRequest) -> list[float]:
        target = self.options.target
        return [-min(1.0, abs(len(text) - target) / target) for text in request.completions]


class ValidJson(Reward):
    """1 if the completion after the thinking is JSON, bare or in a fenced block; else 0."""

    @hookimpl
    def score(self, run: RunContext, request: RewardRequest) -> list[float]:
        return [float(_is_json(_THINKING.sub("", text).strip())) for text in request.completions]


def _is_json(text: str) -> bool:
    fenced = re.fullmatch(r"```(?:json)?\n(.*)\n```", text, re.DOTALL)
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


class Http(Reward):
    """Response of an HTTP endpoint to a POST of {"prompts": [...], "completions": [...]}:
    {"rewards": [...]}, one per completion, null for none.

    Prompts and completions leave the machine unless `url` is local.
    """

    class Options(PluginOptions):
        url: str = "http://127.0.0.1:8000/rewards"
        """Address of the endpoint, http or https."""
        timeout: float = Field(60.0, gt=0, le=86_400)
        """Seconds for each read."""
        token_variable: str | None = None
        """Environment variable with the token that is sent as `Authorization: Bearer`."""

    @hookimpl
    def score(self, run: RunContext, request: RewardRequest) -> list[float | None]:
        from tunewright_rewards.endpoint import ask

        return ask(request.columns["prompts"], request.completions, self.options)


class RewardModel(Reward):
    """Score of each prompt with its completion by the reward model that a run trained last.

    Prompts are rendered for the policy, which must use the template of the reward model. A model
    with media towers sees the media of prompts.
    """

    class Options(PluginOptions):
        path: str | None = None
        """Run folder. Default: that of the run itself, for one of its earlier stages."""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self.judge: Any = None  # loaded at the first call, before the first step

    @hookimpl
    def score(self, run: RunContext, request: RewardRequest) -> list[float | None]:
        from tunewright_rewards.model import Judge

        if self.judge is None:
            self.judge = Judge(run, request.policy, self.options.path)
        columns = request.columns
        return self.judge.score(  # type: ignore[no-any-return]
            columns["prompts"], request.completions, columns.get("media", ())
        )

    def close(self) -> None:
        self.judge = None
