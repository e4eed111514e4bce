"""What requests for chat completions may hold."""

import functools
import threading
from typing import Any

import openai
import pytest

from serve.chat_setup import WEATHER, choice, chunks
from serve.serving import HELLO, scripted
from tunewright.inference import GenerateRequest
from tunewright_conformance.scripted import ScriptedEngine


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_what_the_engine_does_not_support(fields: Any, param: str) -> None:
    with scripted("ok", features=["generation"]) as running:
        reply = running.chat(**fields)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert "does not support" in reply.error["message"] and reply.error["code"] == "unsupported"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": {"a": 3}},
        {"properties": []},
        {"anyOf": {"a": {}}},
        {"$ref": "http://127.0.0.1/a"},
        {"enum": ["x" * 70_000]},
        functools.reduce(lambda inner, _: {"items": inner}, range(40), {"type": "null"}),
    ],
)
def test_a_schema_that_is_none(schema: Any) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with scripted("ok") as running:
        reply = running.chat(response_format=asked)
        assert running.engine.asked == []
    assert (reply.status, reply.error["param"]) == (400, "response_format")


def test_a_schema_may_be_recursive() -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#/$defs/tree"}}}
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": tree}}
    tool = {"type": "function", "function": {"name": "plant", "parameters": schema}}
    with scripted('{"name": "plant", "arguments": {"child": {}}}') as running:
        found = choice(running, tools=[tool], tool_choice="required")
        guide = running.engine.asked[0].guide
    assert found.message.tool_calls[0].function.arguments == '{"child": {}}'
    assert guide.schema["properties"]["arguments"] == schema


def test_unknown_fields_are_refused_with_a_hint() -> None:
    with scripted("ok") as running:
        error = running.chat(temperatur=0).error
        inner = running.chat(messages=[{"role": "user", "content": "a", "nam": "x"}]).error
    assert error["param"] == "temperatur" and "did you mean 'temperature'?" in error["message"]
    assert inner["param"] == "messages[0].nam"


def test_fields_without_effect_are_listed() -> None:
    with scripted("ok") as running:
        assert "x-tunewright-ignored" not in running.chat().headers
        named = [{"role": "user", "content": "a", "name": "bo"}]
        reply = running.chat(user="u", metadata={"a": "b"}, messages=named, stream=True)
    assert reply.headers["x-tunewright-ignored"] == "messages.name, metadata, user"


def test_results_come_in_the_order_of_their_calls() -> None:
    calls = [
        {"id": number, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for number in "ab"
    ]
    results = [{"role": "tool", "tool_call_id": n, "content": f"of {n}"} for n in "ba"]
    with scripted("ok") as running:
        assistant = {"role": "assistant", "content": None, "tool_calls": calls}
        running.chat(messages=[*HELLO, assistant, *results])
        messages = running.engine.asked[0].conversation.messages
    assert [(m.content, m.tool_call_id, m.name) for m in messages[2:]] == [
        ("of a", "a", "f"),
        ("of b", "b", "f"),
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "zz", "content": "?"},
        {"role": "assistant"},
        {"role": "user"},
        {"role": "user", "content": "a", "tool_calls": []} | {"tool_call_id": "a"},
        {"role": "user", "content": [{"type": "text"}]},
    ],
)
def test_messages_that_make_no_sense(message: Any) -> None:
    with scripted("ok") as running:
        reply = running.chat(messages=[*HELLO, message])
    assert reply.status == 400 and reply.error["param"].startswith("messages")
    assert "messages[1]" in reply.error["message"]


def test_a_prompt_that_is_too_long() -> None:
    with scripted("ok", max_length=20) as running:
        assert running.chat(max_tokens=7).status == 200  # "user: Hello" and its answer
        for max_tokens in (10, None):
            content = "long " * 10 if max_tokens is None else "Hello"
            messages = [{"role": "user", "content": content}]
            reply = running.chat(messages=messages, max_tokens=max_tokens)
            assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
            assert "tokens" in reply.error["message"]


def test_usage() -> None:
    with scripted("one two three") as running:
        asked = {"n": 2, "stream_options": {"include_usage": True}}
        last = chunks(running, **asked)[-1]
        assert last.choices == [] and last.usage.completion_tokens == 6
        assert last.usage.prompt_tokens == len("user: Hello")
        counted = chunks(running, stream_options={"continuous_usage_stats": True})
        first, *rest = [c.usage and c.usage.completion_tokens for c in counted]
        assert first is None and rest == sorted(rest) and rest[-1] == 3  # some may come together


def test_the_client_raises_for_an_error_in_a_stream() -> None:
    with scripted(["one", ValueError("of the engine")]) as running:
        with pytest.raises(openai.APIError, match="the engine failed"):
            chunks(running)
        reply = running.chat()  # nothing was sent yet: a status
    assert reply.status == 500 and "of the engine" not in reply.error["message"]


def test_short_prompts_are_encoded_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where that takes no time: the server's other requests wait meanwhile."""
    threads: list[str] = []
    own = ScriptedEngine.encode

    def encode(self: ScriptedEngine, request: GenerateRequest) -> list[int]:
        if request.prompt is None:  # to be rendered
            threads.append(threading.current_thread().name.partition("_")[0])
        return own(self, request)

    monkeypatch.setattr(ScriptedEngine, "encode", encode)
    long = [{"role": "user", "content": "a" * 3000}]
    with scripted("ok", max_length=10_000) as running:
        for is_quick in (False, True):
            running.service.has_quick_prompts = is_quick
            for fields in ({}, {"tools": [WEATHER]}, {"messages": long}):
                assert running.chat(**fields).status == 200
    assert [name == "prompts" for name in threads] == [True, True, True, False, True, True]
