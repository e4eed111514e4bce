"""`tunewright chat`, with a run whose engine says what the test wants."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tunewright import Engine, RecipeError, RowError, RunError, hookimpl
from tunewright.inference import GenerateRequest, InferenceEngine
from tunewright.types import Message
from tunewright_chat import command
from tunewright_chat.session import Reply, arriving
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.scripted import ScriptedEngine
from tunewright_hf.templates.info import ReplyForm, TemplateInfo


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
    assert run.opened == [("runs/a", ["engine=other"])]


def test_exit_leaves(chat: Any) -> None:
    run = Run(["one"])
    assert chat(run, typed="/exit\na\n").exit_code == 0
    assert not run.asked


def interrupted(replies: list[Reply]) -> Iterator[tuple[Reply, str]]:
    """The replies, with Ctrl-C in place of a certain error."""
    try:
        yield from arriving(replies)
    except RunError as error:
        raise (KeyboardInterrupt if "^C" in str(error) else error) from error


def test_ctrl_c_ends_the_reply_and_not_the_conversation(
    chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_chat.plain.arriving", interrupted)
    run = Run(["half ", RunError("^C")], [RunError("^C")], ["whole"])
    result = chat(run, typed="a\nb\nc\n")
    assert result.exit_code == 0
    assert "half" in result.stdout and "whole" in result.stdout
    # what was said stays; a turn without any reply is taken back
    assert run.said(2) == [("user", "a"), ("assistant", "half"), ("user", "c")]
    assert run.engine.opened.closed


def test_an_error_is_reported_and_the_conversation_goes_on(chat: Any) -> None:
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


def test_two_models_answer_under_their_names(chat: Any) -> None:
    run, beside = Run(["le", "ft"]), Run([" ri", "ght"])
    result = chat(run, "--with", "runs/b", "-m", "hi", beside=beside)
    assert result.stdout == "[runs/a]\nleft\n[runs/b]\nright\n"


def test_a_result_is_asked_once_for_a_call_that_both_models_make(chat: Any, tmp_path: Path) -> None:
    tools = code(tmp_path)[:2]
    run, beside = Run([CALL % 2], ["Three."]), Run([CALL % 2], ["3."])
    result = chat(run, *tools, "--with", "runs/b", "-m", "1+2?", "-m", "3", beside=beside)
    assert result.stdout.endswith("[runs/a]\nThree.\n[runs/b]\n3.\n")
    assert '(runs/b calls add with {"a": 1, "b": 2}: say what it gives)' in result.stderr
    for each in (run, beside):
        assert each.said(1)[-1] == ("tool", "3")


def test_each_model_gets_the_result_of_its_own_call(chat: Any, tmp_path: Path) -> None:
    tools = code(tmp_path)[:2]
    run = Run([CALL % 2 + CALL % 3], ["A."], ["Bye."])
    beside = Run([CALL % 5], ["B."], ["Ciao."])
    said = ["-m", "?", "-m", "3", "-m", "4", "-m", "6", "-m", "Thanks."]
    result = chat(run, *tools, "--with", "runs/b", *said, beside=beside)
    assert "A.\n[runs/b]\nB.\n[runs/a]\nBye.\n[runs/b]\nCiao.\n" in result.stdout
    assert run.said(1)[2:] == [("tool", "3"), ("tool", "4")]
    assert beside.said(1)[2:] == [("tool", "6")]
    assert run.said(2)[-1] == beside.said(2)[-1] == ("user", "Thanks.")


def test_a_model_that_calls_nothing_waits_for_the_other(chat: Any, tmp_path: Path) -> None:
    run, beside = Run([CALL % 2], ["Three."], ["Bye."]), Run(["3."], ["Ciao."])
    result = chat(
        run, *code(tmp_path), "--with", "runs/b", "-m", "?", "-m", "Thanks.", beside=beside
    )
    assert "[runs/b]\n3.\n[runs/a]\nThree.\n[runs/a]\nBye.\n[runs/b]\nCiao.\n" in result.stdout
    assert "(runs/a: add gives 3)" in result.stderr
    assert [role for role, _ in beside.said(1)] == ["user", "assistant", "user"]


def test_code_runs_a_call_of_both_models_once(chat: Any, tmp_path: Path) -> None:
    counting = """
from pathlib import Path
FILE = Path(__file__).with_name("n")
def add(a, b):
    FILE.write_text((FILE.read_text() if FILE.exists() else "") + "x")
    return a + b
"""
    run, beside = Run([CALL % 2], [CALL % 9], ["A."]), Run([CALL % 2], [CALL % 8], ["B."])
    tools = code(tmp_path, counting)
    result = chat(run, *tools, "--with", "runs/b", "-m", "?", beside=beside)
    assert result.stdout.endswith("[runs/a]\nA.\n[runs/b]\nB.\n")
    assert (tmp_path / "n").read_text() == "xxx"
    assert (run.said(2)[-1], beside.said(2)[-1]) == (("tool", "10"), ("tool", "9"))


def test_an_adapter_answers_beside_its_model_in_one_engine(chat: Any, tmp_path: Path) -> None:
    def said(request: GenerateRequest) -> str:
        return f"I am {request.model or 'the base'}."

    run, again = Run(), Run()
    for each in (run, again):
        each.engine.opened = ScriptedEngine(said, models=("base", "pirate"))
    adapter = ["--adapter", f"pirate={tmp_path}"]
    result = chat(run, *adapter, "--with", "pirate", "-m", "Who?")
    assert result.stdout == "[runs/a]\nI am the base.\n[pirate]\nI am pirate.\n"
    assert [target for target, _ in run.opened] == ["runs/a"]
    other = chat(again, *adapter, "--with", "runs/b", "-m", "Who?", beside=Run(["B"]))
    assert other.stdout == "[runs/a]\nI am the base.\n[runs/b]\nB\n"


def test_commands_of_a_script(chat: Any, tmp_path: Path) -> None:
    run = Run(["one"], ["two"])
    result = chat(run, typed=f"a\n/regenerate\n/nope\n/save {tmp_path / 'a.json'}\n/quit\nb\n")
    assert result.stdout == "one\ntwo\n"
    assert "there is no such command" in result.stderr
    assert '"two"' in (tmp_path / "a.json").read_text()
    assert len(run.asked) == 2


def test_fields_of_the_model_are_changed_on_the_command_line(chat: Any) -> None:
    run = Run(["one"])
    chat(run, "template=chatml", "family.device=cpu", "--engine", "other", "-m", "hi")
    assert run.opened == [("runs/a", ["template=chatml", "family.device=cpu", "engine=other"])]


def test_without_tools_nothing_is_a_call(chat: Any) -> None:
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    run = Run([call], ["b"])
    chat(run, "-m", "a", "-m", "c")
    assert run.said(1)[1] == ("assistant", call)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[{}]", '[{"function": 1}]', "[" * 100_000])
def test_tools_that_cannot_be_read(chat: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "tools.json").write_text(text)
    with pytest.raises(RecipeError, match=r"tools\.json"):
        chat(Run(), "--tools", str(tmp_path / "tools.json"), "-m", "a")


CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": %s}}</tool_call>'


def code(folder: Path, text: str = "def add(a, b):\n    return a + b\n") -> tuple[str, ...]:
    """Options with a tool, and its code."""
    (folder / "tools.json").write_text('[{"name": "add"}]')
    (folder / "tools.py").write_text(text)
    tools, file = str(folder / "tools.json"), str(folder / "tools.py")
    return "--tools", tools, "--run-tools", file


def test_calls_are_run_by_code_that_the_command_line_names(chat: Any, tmp_path: Path) -> None:
    run = Run([CALL % 2 + CALL % 5], [CALL % '"x"'], ["Done."], ["Bye."])
    result = chat(run, *code(tmp_path), "-m", "1+2?", "-m", "Thanks.")
    assert "(gives 3)" in result.stderr and "(gives 6)" in result.stderr
    assert "say what it gives" not in result.stderr
    assert run.said(1)[2:] == [("tool", "3"), ("tool", "6")]
    role, failure = run.said(2)[-1]
    assert role == "tool" and failure.startswith("error: TypeError: unsupported operand")
    assert run.said(3)[-2:] == [("assistant", "Done."), ("user", "Thanks.")]


def test_a_model_that_does_not_stop_calling_is_stopped(chat: Any, tmp_path: Path) -> None:
    run = Run([CALL % 2])
    with pytest.raises(RunError, match="called tools 20 times in a row"):
        chat(run, *code(tmp_path), "-m", "1+2?")
    assert len(run.asked) == 21


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("add = 1", r"tools\.py: has no function 'add'"),
        ("def add(:", r"tools\.py: cannot be run: SyntaxError"),
        ("1 / 0", r"tools\.py: cannot be run: ZeroDivisionError"),
    ],
)
def test_code_that_cannot_be_used(chat: Any, tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        chat(Run(), *code(tmp_path, text), "-m", "a")


def test_code_without_tools_or_without_a_file(chat: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there are no tools"):
        chat(Run(), "--run-tools", "tools.py", "-m", "a")
    options = code(tmp_path)
    (tmp_path / "tools.py").unlink()
    with pytest.raises(RecipeError, match="is no Python file"):
        chat(Run(), *options, "-m", "a")
