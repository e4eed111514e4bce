"""Replies taken apart, in every form that a template's head can describe."""

from pathlib import Path
from typing import Any

import pytest

from tunewright import RecipeError
from tunewright.types import ToolCall
from tunewright_hf.templates.info import ReplyForm, TemplateInfo
from tunewright_hf.templates.jinja_template import from_file
from tunewright_hf.templates.reply_parser import parse

HERMES = ReplyForm(call=r"<tool_call>\s*", end=r"\s*</tool_call>")
XML = ReplyForm(
    call=r"<tool_call>\s*<function=(?P<name>[^>]+)>\s*",
    end=r"</function>\s*</tool_call>",
    argument=r"<parameter=(?P<key>[^>]+)>\n(?P<value>.*?)\n</parameter>\s*",
)
REACT = ReplyForm(call=r"Action: (?P<name>[^\n]+)\nAction Input: ")
PYTHON = ReplyForm(call=r"<\|call\|>", end=r"<\|end_call\|>", python=True)
LLAMA = ReplyForm(call=r'\A\s*(?=\{"name":)')
HARMONY = ReplyForm(
    call=r"<\|channel\|>commentary to=functions\.(?P<name>\S+) <\|constrain\|>json<\|message\|>",
    end=r"<\|call\|>",
    drop=r"(?:<\|start\|>assistant)?<\|channel\|>(?:final|commentary)<\|message\|>|<\|end\|>",
    thinking=r"<\|channel\|>analysis<\|message\|>",
    thinking_end=r"<\|end\|>",
)
SCHEMA = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"code": {"type": "string"}}}},
    }
]


def reply(
    text: str, form: ReplyForm = HERMES, tools: Any = None, **info: Any
) -> tuple[str, str | None, list[Any]]:
    message = parse(
        text, TemplateInfo(**{"thinking": ("<think>", "</think>"), "reply": form} | info), tools
    )
    return (
        message.content,
        message.reasoning,
        [(call.name, call.arguments) for call in message.tool_calls],
    )


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("plain \n", "plain \n", None),
        ("<think>\nhm\n</think>\n\nyes", "yes", "hm"),
        ("hm\n</think>\n\nyes", "yes", "hm"),  # the prompt had opened it
        ("<think>\n\n</think>\n\nyes", "yes", None),
        ("<think>\ncut off", "", "cut off"),
    ],
)
def test_thinking(text: str, content: str, reasoning: str | None) -> None:
    assert reply(text) == (content, reasoning, [])


@pytest.mark.parametrize(
    ("form", "text", "calls"),
    [
        (
            HERMES,
            '<tool_call>\n{"name": "f", "arguments": {"a": {"b": "}</tool_call>"}}}\n</tool_call>',
            [("f", {"a": {"b": "}</tool_call>"}})],
        ),
        (
            HERMES,
            '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
            [("f", {"a": 1})],
        ),
        (
            HERMES,
            '<tool_call>[{"name": "f", "parameters": {}}, {"tool_name": "g"}]</tool_call>',
            [("f", {}), ("g", {})],
        ),
        (
            HERMES,
            '<tool_call>\n{"name": "f", "arguments": {"a": 1}}',
            [("f", {"a": 1})],
        ),  # cut off before its end
        (
            REACT,
            'Action: f\nAction Input: {"a": 1}\nAction: g\nAction Input: {}',
            [("f", {"a": 1}), ("g", {})],
        ),
        (LLAMA, '{"name": "f", "parameters": {"a": 1}}', [("f", {"a": 1})]),
        (
            PYTHON,
            '<|call|>[f(a="x, y", b=[1, true], c={"d": null}), g()]<|end_call|>',
            [("f", {"a": "x, y", "b": [1, True], "c": {"d": None}}), ("g", {})],
        ),
        (
            XML,
            "<tool_call>\n<function=g>\n<parameter=a>\n7\n</parameter>\n<parameter=b>\ntwo\nlines\n</parameter>\n"
            "</function>\n</tool_call>",
            [("g", {"a": 7, "b": "two\nlines"})],
        ),
        (
            HARMONY,
            '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
            [("f", {"a": 1})],
        ),
    ],
)
def test_calls(form: ReplyForm, text: str, calls: list[Any]) -> None:
    assert reply(text, form) == ("", None, calls)


def test_text_beside_calls() -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert reply(f"I ask.\n{call}\n{call}") == ("I ask.", None, [("f", {}), ("f", {})])


def test_channels() -> None:
    text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    text += "<|channel|>final<|message|>Yes.<|return|>"
    assert reply(text, HARMONY, stop=("<|return|>",)) == ("Yes.", "hm", [])


def test_an_id_is_kept() -> None:
    text = '[TOOL_CALLS][{"name": "f", "arguments": {}, "id": "abc"}]'
    assert parse(text, TemplateInfo(reply=ReplyForm(call=r"\[TOOL_CALLS\]"))).tool_calls == [
        ToolCall("f", {}, "abc")
    ]


def test_the_schema_says_that_a_value_is_text() -> None:
    text = "<tool_call>\n<function=f>\n<parameter=code>\n7\n</parameter>\n</function>\n</tool_call>"
    assert reply(text, XML, SCHEMA)[2] == [("f", {"code": "7"})]
    assert reply(text, XML)[2] == [("f", {"code": 7})]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (HERMES, "<tool_call>\n{broken\n</tool_call>"),
        (HERMES, '<tool_call>["f"]</tool_call>'),
        (HERMES, "<tool_call>" + "[" * 100_000),
        (PYTHON, "<|call|>[f(1)]<|end_call|>"),
        (PYTHON, "<|call|>[f(a=open('x'))]<|end_call|>"),
        (PYTHON, "<|call|>f(a=1)"),
        (REACT, "Action: f\nAction Input: [1]"),
    ],
)
def test_a_call_that_cannot_be_read_stays_text(form: ReplyForm, text: str) -> None:
    assert reply(text, form) == (text, None, [])


def test_without_tools_nothing_is_a_call() -> None:
    text = '{"name": "f", "parameters": {}}'
    assert reply(text, LLAMA, []) == (text, None, [])


@pytest.mark.parametrize(
    ("form", "says"), [("call = '('", "no regular expression"), ("kall = 'x'", "unknown")]
)
def test_a_head_that_cannot_be_read(tmp_path: Path, form: str, says: str) -> None:
    file = tmp_path / "bad.jinja"
    file.write_text(f"{{#- tunewright\n[reply]\n{form}\n-#}}\nx")
    with pytest.raises(RecipeError, match=says):
        from_file(file)
