"""`tunewright chat`, with a run whose engine says what the test wants."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tunewright import RecipeError, RowError
from tunewright.types import GenerateRequest, Message, Reply
from tunewright_chat import command
from tunewright_hf.templates.info import ReplyForm, TemplateInfo
from tunewright_hf.templates.reply_parser import parse


class Run:
    """A run folder whose engine gives prepared answers; an answer may be an exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[GenerateRequest] = []
        self.used: list[str] = []
        self.closed = 0

    def use(self, kind: str, section: Any) -> None:
        self.used.append(f"{kind} {section.name}")

    def plugin(self, kind: str) -> Any:
        form = ReplyForm(call=r"<tool_call>\s*", end=r"\s*</tool_call>")
        info = TemplateInfo(thinking=("<think>", "</think>"), reply=form)
        return SimpleNamespace(parse_reply=lambda text, tools: parse(text, info, tools))

    def call(self, kind: str, hook: str, request: GenerateRequest) -> Iterator[Reply]:
        assert (kind, hook) == ("engine", "generate")
        self.asked.append(request)
        return self._stream(self.answers.pop(0))

    def _stream(self, answer: Any) -> Iterator[Reply]:
        try:
            for piece in answer:
                if isinstance(piece, BaseException):
                    raise piece
                yield Reply(piece)
            yield Reply("", "stop")
        finally:
            self.closed += 1

    def said(self, turn: int) -> list[tuple[str, Any]]:
        return [
            (message.role, message.content) for message in self.asked[turn].conversation.messages
        ]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(run: Run, *arguments: str, typed: str = "") -> Result:
        monkeypatch.setattr("tunewright.run.open_run", lambda folder, trust_remote_code: run)
        app = typer.Typer()
        app.command()(command)
        return CliRunner().invoke(app, ["runs/a", *arguments], input=typed, catch_exceptions=False)

    return call


def test_a_message_prints_only_the_reply(chat: Any) -> None:
    run = Run([" Hel", "lo."])
    result = chat(
        run,
        "--message",
        "hi",
        "--system",
        "Be kind.",
        "--max-new-tokens",
        "7",
        "--temperature",
        "0.5",
    )
    assert result.stdout == "Hello.\n"
    assert run.said(0) == [("system", "Be kind."), ("user", "hi")]
    assert (run.asked[0].max_new_tokens, run.asked[0].temperature) == (7, 0.5)


def test_messages_make_one_conversation_and_thinking_is_kept_apart(chat: Any) -> None:
    run = Run(["<think>hm", "m</think>\n\nParis."], ["Rome."])
    result = chat(run, "-m", "France?", "-m", "Italy?")
    assert result.stdout == "<think>hmm</think>\n\nParis.\nRome.\n"
    assert run.said(1) == [("user", "France?"), ("assistant", "Paris."), ("user", "Italy?")]
    assert run.asked[1].conversation.messages[1] == Message("assistant", "Paris.", reasoning="hmm")


def test_control_characters_of_the_model_do_not_reach_the_terminal(chat: Any) -> None:
    result = chat(Run(["\x1b]0;owned\x07", "a\r\x9b31mb\tc\nd"]), "-m", "hi")
    assert result.stdout == "␛]0;owned␇a␍\ufffd31mb\tc\nd\n"


def test_the_loop_goes_on_until_its_input_ends(chat: Any) -> None:
    run = Run(["one"], ["two"], ["three"])
    result = chat(run, "--engine", "other", typed="a\n\nb\n/clear\nc\n")
    assert result.exit_code == 0
    assert result.stdout == "one\ntwo\nthree\n"  # no prompt: standard input is no terminal
    assert run.said(1) == [("user", "a"), ("assistant", "one"), ("user", "b")]
    assert run.said(2) == [("user", "c")]
    assert run.used == ["engine other"]


def test_exit_leaves(chat: Any) -> None:
    run = Run(["one"])
    assert chat(run, typed="/exit\na\n").exit_code == 0
    assert not run.asked


def test_ctrl_c_ends_the_reply_and_not_the_conversation(chat: Any) -> None:
    run = Run(["half ", KeyboardInterrupt()], [KeyboardInterrupt()], ["whole"])
    result = chat(run, typed="a\nb\nc\n")
    assert result.exit_code == 0
    assert "half" in result.stdout and "whole" in result.stdout
    # what was said stays; a turn without any reply is taken back
    assert run.said(2) == [("user", "a"), ("assistant", "half"), ("user", "c")]
    assert run.closed == 3


def test_an_error_is_said_and_the_conversation_goes_on(chat: Any) -> None:
    run = Run([RowError("no such role")], ["fine"])
    result = chat(run, typed="a\nb\n")
    assert "no such role" in result.stderr
    assert result.stdout == "fine\n"
    assert run.said(1) == [("user", "b")]


def test_a_folder_that_is_no_run_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tunewright.cli import main

    monkeypatch.setattr(sys, "argv", ["tunewright", "chat", str(tmp_path), "-m", "hi"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_calls_of_tools_are_shown_and_answered(chat: Any, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"name": "add"}]')
    call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    run = Run([f"Wait.\n{call}\n{call}"], ["Three."])
    result = chat(run, "--tools", str(tools), "-m", "1+2?", "-m", "3", "-m", "4")
    assert '(calls add with {"a": 1}: say what it gives)' in result.stderr
    assert run.asked[0].conversation.tools == [{"type": "function", "function": {"name": "add"}}]
    assert run.said(1) == [("user", "1+2?"), ("assistant", "Wait."), ("tool", "3"), ("tool", "4")]
    assert [each.name for each in run.asked[1].conversation.messages[1].tool_calls] == [
        "add",
        "add",
    ]


def test_without_tools_nothing_is_a_call(chat: Any) -> None:
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    run = Run([call], ["b"])
    chat(run, "-m", "a", "-m", "c")
    assert run.said(1)[1] == ("assistant", call)


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_tools_that_cannot_be_read(chat: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "tools.json").write_text(text)
    with pytest.raises(RecipeError, match=r"tools\.json"):
        chat(Run(), "--tools", str(tmp_path / "tools.json"), "-m", "a")
