"""Messages and records of the tests of formats."""

from typing import Any

from tunewright.types import Message


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": value} for role, value in turns]}


def talk(*said: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(said)} | more


USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
QUESTION = {"role": "user", "content": "q"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("good", "bad"))


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def said(messages: list[Message]) -> list[tuple[str, Any]]:
    return [(message.role, message.content) for message in messages]


EXPECTED = ([("user", "q")], [("assistant", "good")], [("assistant", "bad")])
