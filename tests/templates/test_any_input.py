"""Property test: any conversation that `template render` reads and any reply that `template parse`
reads gives a result or one line, with every installed template."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import strategies
from tunewright import TunewrightError, registry
from tunewright_template.render import parse_reply, render_lines

NAMES = sorted({entry.name for entry in registry.entries("template")})
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
#: pieces of what models write for thinking and calls, each in the wrong place too
PIECES = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<function=f>",
    "<parameter=a>\n",
    "Action: f\nAction Input: ",
    "[TOOL_CALLS]",
    "<|channel|>analysis<|message|>",
    "<|channel|>commentary to=functions.f json<|message|>",
    "<|python_tag|>",
    '{"name": "f", "arguments": {"a": 1}}',
    '{"name": "f", "parameters": ',
    "functions.f:0<|tool_call_argument_begin|>",
    "f(a=[1, {}], b='",
    "[" * 500,
    "}",
    '"',
    "\n",
)
REPLIES = st.lists(st.sampled_from(PIECES) | strategies.texts, max_size=6).map("".join)
OFTEN = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def checked(said: str) -> None:
    assert len(said.splitlines()) == 1, said
    assert len(said) < 2000, said


@OFTEN
@given(
    st.sampled_from(NAMES),
    strategies.FORMATS["openai"],
    st.booleans(),
    st.dictionaries(strategies.texts, strategies.values, max_size=2),
)
def test_conversations(
    tmp_path: Path, name: str, record: Any, prompt: bool, variables: dict[str, Any]
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    try:
        for found in render_lines(name, tmp_path / "a.jsonl", SPECIAL, prompt, variables):
            if "error" in found:
                checked(found["error"])
            else:
                json.dumps(found, ensure_ascii=False).encode()
                edges = [edge for span in found["trained"] for edge in span]
                assert edges == sorted(edges) and max(edges, default=0) <= len(found["text"])
    except TunewrightError as error:
        checked(str(error))


@OFTEN
@given(st.sampled_from(NAMES), REPLIES, st.none() | st.lists(strategies.values, max_size=2))
def test_replies(name: str, text: str, tools: Any) -> None:
    try:
        found = parse_reply(name, text, tools)
    except TunewrightError as error:
        checked(str(error))
    else:
        assert found["role"] == "assistant"
        json.dumps(found)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "auto"])
def test_every_template_renders_what_is_sound(tmp_path: Path, name: str) -> None:
    """The two above would also hold if every conversation were refused."""
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": talk}))
    (found,) = render_lines(name, tmp_path / "a.jsonl", SPECIAL, False, {})
    assert "q" in found["text"] and "a" in found["text"] and found["trained"]
