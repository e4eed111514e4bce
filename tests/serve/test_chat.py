"""Chat completions: what the wire promises, with the real `openai` client where it can say it."""

import json
from typing import Any

import pytest

from serve.chat_setup import WEATHER, choice, chunks, deltas
from serve.serving import HELLO, scripted
from tunewright.inference import GenerateRequest, JsonSchema, SamplingDefaults

CALL = '<tool_call>\n{"name": "%s", "arguments": {"city": "Oslo"}}\n</tool_call>'
NAMED = {"type": "function", "function": {"name": "weather"}}


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
