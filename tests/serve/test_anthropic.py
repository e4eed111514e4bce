"""Anthropic's wire, with the real `anthropic` client."""

import json
from typing import Any

import anthropic
import pytest

from serve.serving import TOKEN, Running, scripted

HELLO = [{"role": "user", "content": "Hello"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
WEATHER = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {}}}}


def client(running: Running) -> anthropic.Anthropic:
    made = anthropic.Anthropic(base_url=running.address, api_key=TOKEN, max_retries=0)
    return running.clients.enter_context(made)


def create(running: Running, **fields: Any) -> Any:
    asked = {"model": "m", "max_tokens": 50, "messages": HELLO} | fields
    return client(running).messages.create(**asked)


def test_a_message() -> None:
    with scripted("Hi there.") as running:
        made = create(
            running,
            system="Be brief.",
            stop_sequences=["x"],
            extra_body={"temperature": 0.5, "top_k": 3},
        )
        asked = running.engine.asked[0]
    assert made.content[0].text == "Hi there." and made.stop_reason == "end_turn"
    assert (made.usage.output_tokens, made.role, made.model) == (2, "assistant", "m")
    assert [m.role for m in asked.conversation.messages] == ["system", "user"]
    assert (asked.temperature, asked.top_k, asked.stop) == (0.5, 3, ("x",))


def test_reasons_to_stop() -> None:
    with scripted("one two three") as running:
        assert create(running, max_tokens=1).stop_reason == "max_tokens"
        stopped = create(running, stop_sequences=["two"])
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "two")


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_text_and_calls(streamed: bool) -> None:
    with scripted(f"<think>\nhm\n</think>\n\nI ask.\n{CALL}") as running:
        if streamed:
            asked = {"model": "m", "max_tokens": 50, "messages": HELLO, "tools": [WEATHER]}
            with client(running).messages.stream(**asked) as stream:
                events = [event.type for event in stream]
                made = stream.get_final_message()
            assert events[0] == "message_start" and events[-1] == "message_stop"
            assert made.usage.output_tokens == 12
        else:
            made = create(running, tools=[WEATHER])
    assert [block.type for block in made.content] == ["thinking", "text", "tool_use"]
    thinking, text, call = made.content
    assert (thinking.thinking, text.text, call.name) == ("hm", "I ask.", "weather")
    assert call.input == {"city": "Oslo"} and made.stop_reason == "tool_use"


def test_results_of_tools() -> None:
    used = {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Oslo"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "a",
        "content": [{"type": "text", "text": "cold"}],
    }
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    messages = [
        *HELLO,
        {"role": "assistant", "content": [thought, used]},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    with scripted("ok") as running:
        create(running, messages=messages, tools=[WEATHER])
        found = running.engine.asked[0].conversation.messages
    assert [m.role for m in found] == ["user", "assistant", "tool", "user"]
    assert (found[1].reasoning, found[1].tool_calls[0].arguments) == ("hm", {"city": "Oslo"})
    assert (found[2].content, found[2].name) == ("cold", "weather")


def test_forced_calls() -> None:
    with scripted('{"name": "weather", "arguments": {}}', '{"city": "Oslo"}') as running:
        made = create(running, tools=[WEATHER], tool_choice={"type": "any"})
        assert made.content[0].name == "weather" and made.stop_reason == "tool_use"
        named = {"type": "tool", "name": "weather"}
        made = create(running, tools=[WEATHER], tool_choice=named)
        assert made.content[0].input == {"city": "Oslo"}
        with pytest.raises(anthropic.BadRequestError, match="no tool 'x'"):
            create(running, tools=[WEATHER], tool_choice={"type": "tool", "name": "x"})


def test_count_tokens() -> None:
    with scripted() as running:
        counted = client(running).messages.count_tokens(model="m", messages=HELLO)
        assert counted.input_tokens == len("user: Hello") and running.engine.asked == []


def test_errors_are_anthropics() -> None:
    with scripted("ok") as running:
        with pytest.raises(anthropic.NotFoundError) as raised:
            create(running, model="x")
        assert raised.value.body["error"]["type"] == "not_found_error"
        with pytest.raises(anthropic.AuthenticationError):
            anthropic.Anthropic(base_url=running.address, api_key="x").messages.create(
                model="m", max_tokens=1, messages=HELLO
            )
        image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/"}}
        with pytest.raises(anthropic.BadRequestError, match="takes text only"):
            create(running, messages=[{"role": "user", "content": [image]}])
        reply = running.ask("/v1/messages", {"max_tokens": 1, "messages": HELLO, "temperatur": 1})
    assert reply.json["type"] == "error" and "temperatur" in json.dumps(reply.json)
