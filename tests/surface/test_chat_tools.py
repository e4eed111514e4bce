"""Tools, two models and adapters in the command chat."""

from pathlib import Path
from typing import Any

import pytest

from surface.chat_setup import CALL, Run, chat
from tunewright import RecipeError, RunError
from tunewright.inference import GenerateRequest
from tunewright_conformance.scripted import ScriptedEngine

__all__ = ["chat"]  # a fixture


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
