"""Answers of chat completions, as a client gets them."""

from typing import Any

from serve.serving import HELLO, Running

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def chunks(running: Running, **fields: Any) -> list[Any]:
    made = running.client().chat.completions.create(
        **{"model": "m", "messages": HELLO, "stream": True} | fields
    )
    return list(made)


def deltas(running: Running, **fields: Any) -> list[Any]:
    return [chunk.choices[0].delta for chunk in chunks(running, **fields) if chunk.choices]


def choice(running: Running, **fields: Any) -> Any:
    made = running.client().chat.completions.create(**{"model": "m", "messages": HELLO} | fields)
    return made.choices[0]
