"""The command chat with engines that answer as they are told."""

from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tunewright import Engine, hookimpl
from tunewright.inference import GenerateRequest, InferenceEngine
from tunewright_chat import command
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.scripted import ScriptedEngine
from tunewright_hf.templates.info import ReplyForm, TemplateInfo

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": %s}}</tool_call>'


class Prepared(Engine):
    """Opens a scripted engine."""

    def __init__(self, answers: list[Any]) -> None:
        super().__init__(None, "prepared")
        self.opened = ScriptedEngine(*answers)

    @hookimpl
    def open_engine(self) -> InferenceEngine:
        return self.opened


class Run(FakeRun):
    """A run folder whose engine gives prepared answers."""

    def __init__(self, *answers: Any) -> None:
        form = ReplyForm(call=r"<tool_call>\s*", end=r"\s*</tool_call>")
        info = TemplateInfo(thinking=("<think>", "</think>"), reply=form)
        template = SimpleNamespace(info=info)
        self.engine = Prepared(list(answers))
        super().__init__(plugins={"template": template, "engine": self.engine})
        self.opened: list[tuple[str, list[str]]] = []

    @property
    def asked(self) -> list[GenerateRequest]:
        return self.engine.opened.asked

    def said(self, turn: int) -> list[tuple[str, Any]]:
        return [
            (message.role, message.content) for message in self.asked[turn].conversation.messages
        ]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(run: Run, *arguments: str, typed: str = "", beside: Run | None = None) -> Result:
        def open_target(target: str, overrides: list[str], **how: Any) -> Run:
            if target == "runs/b":
                assert beside is not None
                return beside
            run.opened.append((target, overrides))
            return run

        monkeypatch.setattr("tunewright_hf.inference.opening.open_target", open_target)
        app = typer.Typer()
        app.command()(command)
        return CliRunner().invoke(app, ["runs/a", *arguments], input=typed, catch_exceptions=False)

    return call
