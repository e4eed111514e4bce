"""`tunewright chat`, with a run whose engine says what the test wants."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from surface.chat_setup import Run, chat
from tunewright import RowError, RunError
from tunewright.types import Message
from tunewright_chat.session import Reply, arriving

__all__ = ["chat"]  # a fixture


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
