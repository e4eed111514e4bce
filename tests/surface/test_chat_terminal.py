"""The terminal of `tunewright chat`: keys that are typed, and what is on the screen."""

import io
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from tunewright import RunError
from tunewright_chat import terminal
from tunewright_chat.history import history
from tunewright_chat.screen import ReplyMarkdown, finished_blocks
from tunewright_chat.session import Session
from tunewright_chat.settings import Settings
from tunewright_chat.talk import Talk
from tunewright_conformance.scripted import ScriptedEngine
from tunewright_hf.templates.info import ReplyForm, TemplateInfo

INFO = TemplateInfo(
    thinking=("<think>", "</think>"),
    reply=ReplyForm(call=r"<tool_call>\s*", end=r"\s*</tool_call>"),
)
CTRL_C, CTRL_D, ALT_ENTER = "\x03", "\x04", "\x1b\r"


def talk(*engines: ScriptedEngine, tools: Any = ()) -> Talk:
    settings = Settings(tools=list(tools))
    sides = [Session(f"side {n}", each, INFO, settings) for n, each in enumerate(engines)]
    return Talk(sides, settings)


def typed(made: Talk, keys: str) -> str:
    """Type keys, and return what the terminal shows besides the prompt."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=72, color_system=None, highlight=False)
    with create_pipe_input() as pipe, create_app_session(pipe, DummyOutput()):
        pipe.send_text(keys)
        terminal.converse(made, console, InMemoryHistory())
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())


def test_a_reply_is_shown_as_markdown_with_its_thinking_folded() -> None:
    made = talk(ScriptedEngine("<think>one two three</think>\n\n# Title\n\n- **bold** `code`"))
    shown = typed(made, "hi\r" + CTRL_D)
    assert "thought for 3 words" in shown and "one two three" not in shown.splitlines()
    assert "Title" in shown and " • bold code" in shown
    assert "**" not in shown and "#" not in shown


def test_several_lines_are_one_message() -> None:
    made = talk(ScriptedEngine("one"))
    typed(made, f"a{ALT_ENTER}b\nc\r{CTRL_D}")
    assert made.first.messages[0].content == "a\nb\nc"


def test_commands_and_edited_messages() -> None:
    made = talk(ScriptedEngine("one", "two"))
    shown = typed(made, "hi\r/edit\r there\r/undo\r/nope\r/quit\r")
    assert made.first.engine.asked[1].conversation.messages[0].content == "hi there"
    assert "taken back: hi there" in shown
    assert "there is no such command" in shown
    assert made.first.messages == []


def test_ctrl_c_clears_what_was_typed_and_twice_leaves() -> None:
    made = talk(ScriptedEngine("one"))
    shown = typed(made, f"oops{CTRL_C}hi\r{CTRL_C}{CTRL_C}")
    assert [each.content for each in made.first.messages] == ["hi", "one"]
    assert shown.count("Ctrl-C again leaves") == 1


def test_ctrl_c_stops_the_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright_chat import screen

    def stopped(replies: Any) -> Any:
        try:
            yield from arriving(replies)
        except RunError as error:
            raise KeyboardInterrupt from error

    arriving = screen.arriving
    monkeypatch.setattr(screen, "arriving", stopped)
    made = talk(ScriptedEngine(["half ", RunError("^C")], "whole"))
    shown = typed(made, "a\rb\r" + CTRL_D)
    assert "half" in shown and "Ctrl-C again leaves" in shown and "whole" in shown
    assert [each.content for each in made.first.messages] == ["a", "half", "b", "whole"]


def test_an_error_of_the_engine_is_a_line() -> None:
    shown = typed(talk(ScriptedEngine([RunError("no memory")])), "a\r" + CTRL_D)
    assert "no memory" in shown


def test_calls_are_shown_and_the_prompt_asks_for_their_results() -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": "x"}}</tool_call>'
    made = talk(ScriptedEngine(call, "Three."), tools=[{"function": {"name": "add"}}])
    shown = typed(made, "sum\r3\r" + CTRL_D)
    assert '⚙ add(a=1, b="x")' in shown and "Three." in shown
    assert made.first.messages[2].role == "tool"


def test_the_prompt_names_the_tool_whose_result_is_typed() -> None:
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    made = talk(ScriptedEngine(call), tools=[{"function": {"name": "add"}}])
    assert terminal._label(made)[0][1] == "> "
    typed(made, "sum\r" + CTRL_D)
    assert terminal._label(made)[0][1] == "add gives: "


def test_two_models_are_shown_side_by_side() -> None:
    shown = typed(talk(ScriptedEngine("left"), ScriptedEngine("right")), "hi\r" + CTRL_D)
    assert any("left" in line and "right" in line for line in shown.splitlines())
    assert any("side 0" in line and "side 1" in line for line in shown.splitlines())


def test_a_reply_that_is_cut_off_says_so() -> None:
    made = talk(ScriptedEngine("one two three"))
    assert "cut off" in typed(made, "/params max_new_tokens=2\rhi\r" + CTRL_D)


def test_control_characters_and_html_of_the_model_are_text() -> None:
    shown = typed(talk(ScriptedEngine("\x1b]0;owned\x07 <b>x</b> [a](http://e.x)")), "hi\r\x04")
    assert "␛]0;owned␇" in shown and "<b>x</b>" in shown and "http://e.x" in shown


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    def colours(**environment: str) -> list[str]:
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, width=72, _environ=environment)
        console.print(ReplyMarkdown("```python\nx = 1\n```\n\n`code`"))
        return re.findall(r"\x1b\[[0-9;]*3[0-7][0-9;]*m", out.getvalue())

    plain = {"TERM": "xterm-256color"}
    assert colours(**plain) and not colours(**plain, NO_COLOR="1")


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one", ""),
        ("one\n\n", ""),  # the next line may be indented
        ("one\n\ntwo", "one\n\n"),
        ("- a\n\n  more of a", ""),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\nx\n````\n\ny", "````\n```\n\nx\n````\n\n"),
        ("~~~\n\n```\n\nx", ""),
    ],
)
def test_blocks_are_finished_where_nothing_changes_them(text: str, finished: str) -> None:
    assert text[: finished_blocks(text, 0)] == finished


def test_blocks_that_stream_are_rendered_as_the_whole_is() -> None:
    text = "# A\n\nText *b*\nmore\n\n1. x\n2. y\n\n```python\nf()\n\ng()\n```\n\n"
    text += "| a | b |\n|---|---|\n| 1 | 2 |\n\nEnd."
    shown = typed(talk(ScriptedEngine([*text])), "hi\r" + CTRL_D)
    out = io.StringIO()
    Console(file=out, width=72, force_terminal=False).print(ReplyMarkdown(text))
    whole = [line.strip() for line in out.getvalue().splitlines() if line.strip()]
    shown_lines = [line.strip() for line in shown.splitlines()]
    assert [line for line in whole if line not in shown_lines] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")
def test_the_history_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = tmp_path / "tunewright/chat_history"
    file.parent.mkdir()
    file.write_text("")
    file.chmod(0o644)
    kept = history()
    kept.store_string("hello")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [*history().load_history_strings()] == ["hello"]
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    assert isinstance(history(), InMemoryHistory)


@pytest.fixture
def complete() -> Callable[[str], list[str]]:
    made = talk(ScriptedEngine("one", models=("base", "pirate")))
    completer = terminal.CommandCompleter(made)

    def call(text: str) -> list[str]:
        document = Document(text)
        return [each.text for each in completer.get_completions(document, CompleteEvent())]

    return call


def test_completion(
    complete: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.json").touch()
    monkeypatch.chdir(tmp_path)
    assert complete("/re") == ["/regenerate"]
    assert complete("/params seed=1 top_") == ["top_p=", "top_k="]
    assert complete("/adapter p") == ["pirate"]
    assert complete("/load no") == ["tes.json"]
    assert complete("hello /re") == []
