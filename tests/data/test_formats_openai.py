"""The format openai: calls, parts and reasoning, and records that cannot be used."""

from typing import Any

import pytest

from data.converting import convert, messages, problem
from data.formats_setup import ANSWER, USER, talk
from tunewright.types import Conversation, MediaPart, Message, TextPart, ToolCall

SCHEMA = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}


def test_openai_parallel_tool_calls_with_arguments_as_text_or_object() -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "2", "type": "function", "function": {"name": "g", "arguments": {"b": 2}}},
        {"id": "3", "type": "function", "function": {"name": "h", "arguments": ""}},
    ]
    row = convert(
        "openai",
        talk(
            USER,
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "2", "content": "r2"},
            {"role": "tool", "tool_call_id": "1", "name": "f", "content": "r1"},
            ANSWER,
            tools=[SCHEMA],
        ),
    )
    assert isinstance(row, Conversation)
    assert row.messages[1].tool_calls == [
        ToolCall("f", {"a": 1}, "1"),
        ToolCall("g", {"b": 2}, "2"),
        ToolCall("h", {}, "3"),
    ]
    assert row.messages[3] == Message("tool", "r1", tool_call_id="1", name="f")
    assert row.tools == [SCHEMA]


def test_openai_reasoning_weights_and_template_variables() -> None:
    row = convert(
        "openai",
        talk(
            {"role": "developer", "content": "S"},
            USER,
            ANSWER | {"reasoning_content": "hm", "train": False},
            USER,
            ANSWER | {"weight": 0.5},
            chat_template_kwargs={"enable_thinking": True},
        ),
    )
    assert isinstance(row, Conversation)
    assert [m.loss_weight for m in row.messages] == [0, 0, 0, 0, 0.5]
    assert row.messages[0].role == "system"
    assert row.messages[2].reasoning == "hm"
    assert row.variables == {"enable_thinking": True}


def test_openai_function_call_of_the_old_api() -> None:
    record = talk(
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        ANSWER,
    )
    found = messages("openai", record)
    assert found[1].tool_calls == [ToolCall("f", {})]
    assert found[2].role == "tool"


def test_openai_parts() -> None:
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "a/1.jpg"}},
        {"type": "image", "image": "2.jpg"},
        {"type": "video_url", "video_url": "3.mp4"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "image_url", "value": "data:image/png;base64,AAAA"},
    ]
    found = messages("openai", talk({"role": "user", "content": parts}, ANSWER))
    assert found[0].content == [
        TextPart("see"),
        MediaPart("image", "a/1.jpg"),
        MediaPart("image", "2.jpg"),
        MediaPart("video", "3.mp4"),
        MediaPart("audio", "data:audio/wav;base64,AAAA"),
        MediaPart("image", "data:image/png;base64,AAAA"),
    ]


def test_openai_parts_of_the_assistant() -> None:
    parts = [
        {"type": "reasoning", "value": "hm"},
        {"type": "text", "value": "a"},
        {"type": "tool_call", "value": '{"name": "f", "arguments": {}}'},
    ]
    (_, found) = messages("openai", talk(USER, {"role": "assistant", "content": parts}))
    assert found == Message("assistant", "a", reasoning="hm", tool_calls=[ToolCall("f", {})])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (talk(), "messages: is empty"),
        (
            talk({"role": "usr", "content": "q"}),
            "messages[0].role: found 'usr', expected system, developer, user",
        ),
        (talk({"content": "q"}), "messages[0].role: found null, expected"),
        (
            talk({"role": "user", "content": None}, ANSWER),
            "messages[0].content: found null, expected text",
        ),
        (
            talk(USER, {"role": "assistant", "content": None}),
            "messages[1].content: found null, expected text",
        ),
        (
            talk(USER, {"role": "assistant", "content": {"a": 1}}),
            "messages[1].content: found an object with a",
        ),
        (talk(USER), "messages[0]: the last message is from user"),
        (
            talk(USER, ANSWER, {"role": "tool", "content": "x"}),
            "messages[2]: the last message is from tool",
        ),
        (
            talk(USER, ANSWER | {"weight": -1}),
            "messages[1].weight: found -1, expected true, false or a number of 0 or more",
        ),
        (
            talk(USER, ANSWER | {"loss_weight": 1e300}),
            "messages[1].loss_weight: found 1e+300, expected 0 or 1e-06 to 1e+06",
        ),
        (
            talk(USER, ANSWER | {"weight": float("nan")}),
            "messages[1].weight: found NaN, expected true, false or a number",
        ),
        (
            talk(USER, ANSWER | {"train": "no"}),
            "messages[1].train: found 'no', expected true, false or a number",
        ),
        (
            talk(USER, ANSWER | {"train": False, "weight": 1}),
            "messages[1]: has weight and train that differ",
        ),
        (
            talk(USER, ANSWER | {"weight": 10**400}),
            "messages[1].weight: found a number of many digits, expected 0 or",
        ),
        (talk(USER, ANSWER | {"reasoning_content": 3}), "messages[1].reasoning_content: found 3"),
        (
            talk(USER, ANSWER | {"tool_calls": [{"id": "1"}]}),
            "messages[1].tool_calls[0].name: found null",
        ),
        (
            talk(USER, ANSWER | {"tool_calls": [{"function": {"name": "f", "arguments": "{a"}}]}),
            "messages[1].tool_calls[0].function.arguments: found '{a', expected JSON",
        ),
        (
            talk(
                USER,
                ANSWER | {"tool_calls": [{"id": "1", "name": "f"}]},
                {"role": "tool", "tool_call_id": "2", "content": ""},
                ANSWER,
            ),
            "messages[2].tool_call_id: '2' answers no call, expected 1",
        ),
        (
            talk({"role": "user", "content": [{"type": "pdf"}]}, ANSWER),
            "messages[0].content[0].type: found 'pdf'",
        ),
        (
            talk({"role": "user", "content": [{"type": "reasoning", "value": "x"}]}, ANSWER),
            "messages[0].content[0].type: found 'reasoning'",
        ),
        (talk(USER, ANSWER, tools="3"), "tools: found 3, expected a list"),
        (
            talk(USER, ANSWER, chat_template_kwargs=3),
            "chat_template_kwargs: found 3, expected an object",
        ),
    ],
)
def test_openai_names_what_is_wrong(record: dict[str, Any], expected: str) -> None:
    assert problem("openai", record).startswith(expected)
