"""`tunewright template render` and `template parse`: JSON lines in, JSON lines out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tunewright import RecipeError
from tunewright_template import app

TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"properties": {"id": {"type": "string"}}}},
}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"id": "7"}}}


def call(*arguments: str, typed: str = "") -> list[Any]:
    parent = typer.Typer()
    parent.add_typer(app, name="template")
    done = CliRunner().invoke(parent, ["template", *arguments], input=typed, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]


def lines(*records: Any) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def ask(text: str, *answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}, *answer]


def test_each_line_gives_its_text_and_what_is_trained() -> None:
    answer = {"role": "assistant", "content": "hé 🙂\u2028"}
    (made,) = call(
        "render",
        "default",
        "--input",
        "-",
        "--eos",
        "</e>",
        typed=lines({"messages": ask("hi", answer)}),
    )
    assert made["text"] == "Human: hi</e>\nAssistant:hé 🙂\u2028</e>\n"
    ((start, end),) = made["trained"]
    assert made["text"][start:end] == "hé 🙂\u2028</e>"


def test_the_prompt_with_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "talks.jsonl"
    file.write_text(lines({"messages": ask("hi")}))
    (made,) = call(
        "render",
        "qwen3",
        "--input",
        str(file),
        "--generation-prompt",
        "--set",
        "enable_thinking=false",
    )
    assert made == {
        "text": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "trained": [],
    }


def test_calls_may_be_objects_or_json_text() -> None:
    text = {"type": "function", "function": {"name": "add", "arguments": '{"id": "7"}'}}
    talks = [
        {"messages": ask("hi", {"role": "assistant", "tool_calls": [c]}), "tools": [TOOL]}
        for c in (CALL, text)
    ]
    one, other = call("render", "qwen3", "--input", "-", typed=lines(*talks))
    assert one == other
    assert '{"name": "add", "arguments": {"id": "7"}}' in one["text"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "Expecting value"),
        ("[]", 'a list "messages"'),
        ('{"messages": [{"role": "king"}]}', "messages[0]: expected an object with a role"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "message 1 is from assistant"),
        ('{"messages": [{"role": "user", "content": 7}]}', "messages[0].content"),
        ('{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', "messages[0].content"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        ('{"messages": [{"role": "assistant", "tool_calls": 3}]}', "messages[0].tool_calls"),
        (
            '{"messages": [{"role": "assistant", "tool_calls": [{"function": 3}]}]}',
            "messages[0].tool_calls",
        ),
        (
            (
                '{"messages": [{"role": "assistant", "tool_calls": [{"function": '
                '{"name": "f", "arguments": "{"}}]}]}'
            ),
            "messages[0].tool_calls",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "a", "reasoning_content": 7}]}',
            "reasoning_content",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "a", "weight": "much"}]}',
            "messages[0].weight",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "a", "weight": -1}]}',
            "messages[0].weight",
        ),
        ('{"messages": [{"role": "user", "content": "a"}], "tools": [1]}', "tools[0]"),
        (
            (
                '{"messages": [{"role": "user", "content": "a"}], "tools": {"type": '
                '"function", "function": 3}}'
            ),
            "tools[0]",
        ),
        (
            '{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": [1]}',
            "chat_template_kwargs",
        ),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_cannot_be_rendered_is_an_error_and_the_next_goes_on(
    line: str, says: str
) -> None:
    typed = f"{line}\n\n{lines({'messages': ask('hi')})}"
    wrong, right = call("render", "chatml", "--input", "-", typed=typed)
    assert says in wrong["error"] and "text" not in wrong
    assert right["text"].startswith("<|im_start|>user\nhi")


def test_a_message_says_whether_it_is_trained() -> None:
    turns = [
        {**answer, "role": "assistant"}
        for answer in (
            {"content": "one", "train": False},
            {"content": "two", "weight": 0},
            {"content": "three", "train": True},
        )
    ]
    messages = [message for turn in turns for message in ask("hi", turn)]
    (made,) = call("render", "chatml", "--input", "-", typed=lines({"messages": messages}))
    assert [made["text"][start:end] for start, end in made["trained"]] == ["three<|im_end|>"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        call("render", "chatml", "--input", str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[" * 100_000])
def test_tools_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "tools.json").write_text(text)
    with pytest.raises(RecipeError, match=r"tools\.json"):
        call("parse", "auto", "--tools", str(tmp_path / "tools.json"), typed="a")


def test_a_reply_is_parsed(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps([TOOL]))
    reply = 'Wait.\n<tool_call>\n{"name": "add", "arguments": {"id": "7"}}\n</tool_call>'
    (found,) = call(
        "parse", "auto", "--tools", str(tools), typed=f"<think>\nhm\n</think>\n\n{reply}"
    )
    assert found == {
        "role": "assistant",
        "content": "Wait.",
        "reasoning_content": "hm",
        "tool_calls": [CALL],
    }


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys; from tunewright_template.render import parse_reply, "
        "render_lines; from pathlib import Path\n"
        "print(list(render_lines('chatml', Path('-'), {}, True, {})), "
        "parse_reply('chatml', 'a', None))\n"
        "print('heavy:', [name for name in ('torch', 'transformers', 'tokenizers') "
        "if name in sys.modules])"
    )
    typed = lines({"messages": ask("hi")})
    done = subprocess.run(
        [sys.executable, "-c", code], input=typed, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("heavy: []\n")
