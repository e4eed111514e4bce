"""Chat completions: what the wire promises, with the real `openai` client where it can say it."""

import functools
import json
import threading
from typing import Any

import openai
import pytest

from serve.serving import HELLO, Running, scripted
from tunewright.inference import GenerateRequest, JsonSchema, SamplingDefaults
from tunewright_conformance.scripted import ScriptedEngine

CALL = '<tool_call>\n{"name": "%s", "arguments": {"city": "Oslo"}}\n</tool_call>'
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
NAMED = {"type": "function", "function": {"name": "weather"}}


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


def test_fields_reach_the_engine() -> None:
    with scripted("ok", models=("base", "b")) as running:
        running.chat(
            model="b",
            temperature=0.5,
            top_p=0.9,
            top_k=-1,
            min_p=0.1,
            repetition_penalty=1.2,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            logit_bias={"7": -100},
            seed=-1,
            stop="x",
            stop_token_ids=[9],
            ignore_eos=True,
            n=2,
            max_tokens=9,
            max_completion_tokens=5,
            logprobs=True,
            top_logprobs=2,
        )
        asked = running.engine.asked[0]
    assert asked == GenerateRequest(
        conversation=asked.conversation,
        prompt=asked.prompt,
        model="b",
        temperature=0.5,
        top_p=0.9,
        top_k=0,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={7: -100.0},
        seed=2**63 - 1,
        stop=("x",),
        stop_ids=(9,),
        ignore_eos=True,
        n=2,
        max_new_tokens=5,
        logprobs=2,
    )


def test_what_is_not_given_is_left_to_the_checkpoint() -> None:
    with scripted("ok", defaults=SamplingDefaults(temperature=0.7)) as running:
        running.chat()
        asked = running.engine.asked[0]
    assert (asked.temperature, asked.top_p, asked.max_new_tokens) == (None, None, None)


@pytest.mark.parametrize("content", ["<think>\nhm\n</think>\n\nYes.", "hm\n</think>\n\nYes."])
def test_reasoning_has_both_names(content: str) -> None:
    opened = not content.startswith("<think>")
    messages = [{"role": "user", "content": "Why?" + " <think>" * opened}]
    with scripted(content) as running:
        message = running.chat(messages=messages).json["choices"][0]["message"]
        assert message["content"] == "Yes."
        assert message["reasoning"] == message["reasoning_content"] == "hm"
        parts = deltas(running, messages=messages)
    assert "".join(part.content or "" for part in parts) == "Yes."
    assert "".join(getattr(part, "reasoning_content", None) or "" for part in parts) == "hm"
    assert "".join(getattr(part, "reasoning", None) or "" for part in parts) == "hm"


def test_calls() -> None:
    with scripted(f"I ask.\n{CALL % 'weather'}\n{CALL % 'other'}") as running:
        found = choice(running, tools=[WEATHER])
        assert found.finish_reason == "tool_calls" and found.message.content == "I ask."
        names = [call.function.name for call in found.message.tool_calls]
        assert names == ["weather", "other"]
        assert json.loads(found.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
        assert len({call.id for call in found.message.tool_calls}) == 2
        calls = [
            call for part in deltas(running, tools=[WEATHER]) for call in part.tool_calls or []
        ]
        assert [(call.index, call.function.name) for call in calls] == [
            (0, "weather"),
            (1, "other"),
        ]
        assert chunks(running, tools=[WEATHER])[-1].choices[0].finish_reason == "tool_calls"
        one = choice(running, tools=[WEATHER], parallel_tool_calls=False)
        assert len(one.message.tool_calls) == 1


def test_without_tools_nothing_is_a_call() -> None:
    with scripted(CALL % "weather") as running:
        for fields in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
            found = choice(running, **fields)
            assert found.message.content == CALL % "weather" and found.finish_reason == "stop"
        assert running.engine.asked[-1].conversation.tools == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_half_a_character_in_a_call(path: str) -> None:
    call = CALL.replace("Oslo", "\\ud800") % "weather"
    tool = {"name": "weather", "input_schema": {}} if "messages" in path else WEATHER
    asked = {"model": "m", "max_tokens": 50, "messages": HELLO, "tools": [tool]}
    with scripted([call]) as running:
        for stream in (False, True):
            reply = running.ask(path, asked | {"stream": stream})
            assert reply.status == 200 and b"ud800" in reply.data and b"error" not in reply.data


def test_a_call_that_is_cut_off_is_text_with_finish_reason_length() -> None:
    with scripted(["<tool_call>", '{"name": "weather",', " "]) as running:
        fields = {"tools": [WEATHER], "max_tokens": 2}
        found = choice(running, **fields)
        assert found.finish_reason == "length" and not found.message.tool_calls
        assert chunks(running, **fields)[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("tool_choice", "answer", "reason"),
    [
        ("required", ['{"name": "weather",', ' "arguments": {"city": "Oslo"}}'], "tool_calls"),
        (NAMED, ['{"city":', ' "Oslo"}'], "stop"),  # as OpenAI says it
    ],
)
def test_forced_calls_are_guided(tool_choice: Any, answer: list[str], reason: str) -> None:
    with scripted(answer) as running:
        fields = {"tools": [WEATHER], "tool_choice": tool_choice}
        found = choice(running, **fields)
        call = found.message.tool_calls[0].function
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})
        assert found.finish_reason == reason and found.message.content is None
        assert chunks(running, **fields)[-1].choices[0].finish_reason == reason
        assert isinstance(running.engine.asked[0].guide, JsonSchema)
        cut = choice(running, max_tokens=1, **fields)
        assert cut.finish_reason == "length" and not cut.message.tool_calls


def test_a_guided_answer_closes_the_thinking_first() -> None:
    with scripted("</think>\n\n{}") as running:
        messages = [{"role": "user", "content": "<think>"}]
        found = choice(running, messages=messages, response_format={"type": "json_object"})
        assert running.engine.asked[0].guide.before == "\n</think>\n\n"
    assert found.message.content == "{}"


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
