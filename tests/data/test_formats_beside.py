"""Formats: weights, thinking, calls, and tools of the old API."""

import json
from typing import Any

import pytest

from data.converting import convert, messages, problem
from tunewright.types import Conversation, Message, ToolCall

SCHEMA = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def chat(*said: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": value} for role, value in said]}


def talk(*said: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(said)} | more


def roles(found: list[Message]) -> list[str]:
    return [message.role for message in found]


CALL = '{"name": "f", "arguments": {"a": 1}}'


@pytest.mark.parametrize(
    ("value", "reasoning", "text", "count"),
    [
        (CALL, None, "", 1),
        (f"[{CALL}, {CALL}]", None, "", 2),
        (f"<think>\nhm\n</think>\n\n{CALL}", "hm", "", 1),
        (f"<think>\n\n</think>\n\n{CALL}", None, "", 1),
        (f"Let me see.\n{CALL}", None, "Let me see.", 1),
        (f"<think>hm {{1}}</think>One, [two]:\n[{CALL}]", "hm {1}", "One, [two]:", 1),
        (f"Now:\n<tool_call>\n{CALL}\n</tool_call>", None, "Now:", 1),
        (
            f"<think>x</think><tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>",
            "x",
            "",
            2,
        ),
    ],
)
def test_sharegpt_calls_with_thinking_and_text_before_them(
    value: str, reasoning: str | None, text: str, count: int
) -> None:
    turns = chat(("human", "q"), ("function_call", value), ("observation", "1"), ("gpt", "b"))
    call = ToolCall("f", {"a": 1})
    expected = Message("assistant", text, reasoning, tool_calls=[call] * count)
    assert messages("sharegpt", turns)[1] == expected


@pytest.mark.parametrize("key", ["arguments", "parameters", "args", "input"])
@pytest.mark.parametrize("below", [False, True], ids=["bare", "below function"])
def test_arguments_have_the_names_of_several_libraries(key: str, below: bool) -> None:
    for value in ({"a": 1}, '{"a": 1}'):
        call: dict[str, Any] = {"name": "f", key: value}
        written = {"function": call} if below else call
        row = messages("openai", talk(USER, {"role": "assistant", "tool_calls": [written]}))
        assert row[1].tool_calls == [ToolCall("f", {"a": 1})]
    turns = chat(("human", "q"), ("function_call", json.dumps({"name": "f", key: {"a": 1}})))
    assert messages("sharegpt", turns)[1].tool_calls == [ToolCall("f", {"a": 1})]


def test_arguments_beside_the_function_are_its_arguments() -> None:
    call = {"function": {"name": "f"}, "arguments": {"a": 1}}
    row = messages("openai", talk(USER, {"role": "assistant", "tool_calls": [call]}))
    assert row[1].tool_calls == [ToolCall("f", {"a": 1})]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            {"name": "f", "kwargs": {"a": 1}},
            "name, kwargs, and no arguments: expected arguments, par",
        ),
        ({"function": {"name": "f", "kw": {"a": 1}}}, "name, kw, and no arguments: expected"),
        ({"name": "f", "args": {"a": 1}, "input": {"a": 2}}, "has args and input that differ"),
        ({"name": "f", "parameters": [1]}, "parameters: found a list, expected an object"),
    ],
)
def test_arguments_that_cannot_be_read_are_never_trained_as_none(call: Any, expected: str) -> None:
    assert expected in problem("openai", talk(USER, {"role": "assistant", "tool_calls": [call]}))
    turns = chat(("human", "q"), ("function_call", json.dumps(call)))
    assert expected in problem("sharegpt", turns)


def test_a_call_may_have_no_arguments() -> None:
    for call in ({"name": "f"}, {"name": "f", "arguments": None}, {"name": "f", "arguments": ""}):
        row = messages("openai", talk(USER, {"role": "assistant", "tool_calls": [call]}))
        assert row[1].tool_calls == [ToolCall("f", {})]


def test_sharegpt_calls_join_the_turn_of_gpt_before_them_with_all_they_have() -> None:
    call = f"<think>hm</think>So:\n{CALL}"
    turns = chat(("human", "q"), ("gpt", "A"), ("function_call", call), ("tool", "1"), ("gpt", "b"))
    found = messages("sharegpt", turns)[1]
    assert (found.content, found.reasoning, len(found.tool_calls)) == ("A\nSo:", "hm", 1)
    turns["conversations"][1]["reasoning"] = "other"
    assert "expected one" in problem("sharegpt", turns)


def test_an_empty_question_is_a_question() -> None:
    assert messages("sharegpt", chat(("human", ""), ("gpt", "b")))[0] == Message("user", "")
    record = talk({"role": "user", "content": ""}, ANSWER)
    assert messages("openai", record)[0] == Message("user", "")


def test_results_of_calls_that_a_text_spells_are_for_the_template_to_judge() -> None:
    turns = chat(("human", "q"), ("gpt", "<tool_call>"), ("tool", "1"), ("gpt", "b"))
    assert roles(messages("sharegpt", turns)) == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("key", ["weight", "loss_weight", "train", "training", "trainable", "loss"])
@pytest.mark.parametrize(("value", "expected"), [(False, 0), (True, 1), (0, 0), (0.25, 0.25)])
def test_a_message_may_have_a_loss_weight_of_any_name(
    key: str, value: Any, expected: float
) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", key: value}]
    for found in (
        messages("openai", talk(USER, ANSWER | {key: value})),
        messages("sharegpt", {"conversations": turns}),
    ):
        assert [message.loss_weight for message in found] == [0, expected]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_is_read_in_every_format(key: str) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", key: "hm"}]
    for found in (
        messages("openai", talk(USER, ANSWER | {key: "hm"})),
        messages("sharegpt", {"conversations": turns}),
        messages("alpaca", {"instruction": "q", "output": "a", key: "hm"}),
        messages("prompt_completion", {"prompt": "q", "completion": "a", key: "hm"}),
        messages("prompt_completion", {"prompt": "q", "completion": [ANSWER | {key: "hm"}]}),
    ):
        assert found == [Message("user", "q"), Message("assistant", "a", reasoning="hm")]


def test_functions_of_the_old_api_are_tools() -> None:
    old = [SCHEMA["function"]]
    for written in (old, json.dumps(old)):
        row = convert("openai", talk(USER, ANSWER, functions=written))
        assert isinstance(row, Conversation)
        assert row.tools == [SCHEMA]
    both = convert("openai", talk(USER, ANSWER, functions=old, tools=[SCHEMA]))
    assert isinstance(both, Conversation)
    assert both.tools == [SCHEMA]
    other = convert("openai", talk(USER, ANSWER, functions=["names", "of", "something"]))
    assert isinstance(other, Conversation)
    assert other.tools == []
