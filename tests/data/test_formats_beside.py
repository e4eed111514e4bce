"""What formats read besides the plain turns: weights, thinking, calls, and tools of the old API."""

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
