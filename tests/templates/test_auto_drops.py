"""Template auto refuses a row with something that the checkpoint's template does not write."""

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from template_cases import CALL, TALKS, WEATHER, assistant, byte_level, render, talk, tool, user
from tunewright import RowError
from tunewright.types import (
    Conversation,
    Message,
    Preference,
    Prompt,
    Rendered,
    Row,
    TextPart,
    ToolCall,
    Unpaired,
)
from tunewright_dataset_chat import pairs
from tunewright_hf.tokenization.encode import Tokeniser
from tunewright_templates import Auto

TRL = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # type: ignore[union-attr]

TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
CALLS = "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
THINKING = "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
TEXT = "{{ m.content }}"


def source(
    *, tools: str = TOOLS, calls: str = CALLS, thinking: str = THINKING, text: str = TEXT
) -> str:
    return (
        tools
        + "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n"
        + thinking
        + text
        + calls
        + "<|eot_id|>{% endfor %}"
        + "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n{% endif %}"
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_level(eos="<|eot_id|>", bos="<|begin_of_text|>")


@pytest.fixture(scope="module")
def plugin() -> Auto:
    return Auto(Auto.Options(role_order="any"), "auto")


def auto(
    tokenizer: Any, plugin: Auto, source: str, conversation: Conversation, prompt: bool = False
) -> Rendered:
    tokenizer.chat_template = source
    special = Tokeniser(tokenizer, Auto.info).special_tokens
    return render(plugin, conversation, special, prompt, tokenizer=tokenizer)


CALLED = talk(
    user("High water?"),
    Message("assistant", "", tool_calls=[CALL, ToolCall("now", {})]),
    tool("04:10"),
    tool("03:00"),
    assistant("At ten past four.", reasoning="It is early."),
    tools=[WEATHER],
)


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ({}, None),
        ({"tools": ""}, "the tools"),
        ({"tools": "{{ tools[0] | tojson if tools and tools | length > 1 }}"}, "the tools"),
        ({"calls": ""}, "a tool call of message 2"),
        (
            {"calls": "{{ m.tool_calls[0].function | tojson if m.tool_calls }}"},
            "a tool call of message 2",
        ),
        (
            {"calls": "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}"},
            "a tool call of",
        ),
        ({"thinking": ""}, "the thinking of message 5"),
        ({"text": "{{ m.content if m.role != 'tool' }}"}, "the text of message 3"),
        ({"text": "{{ m.content if not loop.last }}"}, "the text of message 5"),
        # other words for the same
        ({"calls": CALLS.replace("tojson", "tojson(indent=2)")}, None),
        (
            {
                "calls": "{% for c in m.tool_calls or [] %}<{{ c.function.name }}>{% for k, v in "
                "c.function.arguments | items %}{{ k }}={{ v }};{% endfor %}{% endfor %}"
            },
            None,
        ),
        ({"tools": "{% for t in tools or [] %}def {{ t.function.name }}(…){% endfor %}"}, None),
        ({"text": "{{ m.content | trim }}"}, None),
    ],
)
def test_what_a_template_leaves_out(
    tokenizer: Any, plugin: Auto, parts: dict[str, str], missing: str | None
) -> None:
    if missing is None:
        assert auto(tokenizer, plugin, source(**parts), CALLED).trained
        return
    with pytest.raises(RowError, match=f"does not write {missing}"):
        auto(tokenizer, plugin, source(**parts), CALLED)
    plain = talk(user("a"), assistant("b"))
    assert auto(tokenizer, plugin, source(**parts | {"text": TEXT}), plain).trained


def test_the_words_of_a_row_elsewhere_in_it_do_not_count(tokenizer: Any, plugin: Auto) -> None:
    """The question names the tool, its argument and the thinking: all the template drops."""
    spoken = talk(
        user("get_weather city Zürich days 3 hm"),
        Message("assistant", "", reasoning="hm", tool_calls=[CALL]),
        tools=[WEATHER],
    )
    for part in ("tools", "calls", "thinking"):
        with pytest.raises(RowError, match="does not write"):
            auto(tokenizer, plugin, source(**{part: ""}), spoken)


@pytest.mark.parametrize("weight", [None, 1.0, 0.0])
def test_thinking_of_earlier_and_of_untrained_answers_may_be_gone(
    tokenizer: Any, plugin: Auto, weight: float | None
) -> None:
    last_only = source(
        thinking="{% if loop.last and m.reasoning_content %}" + THINKING + "{% endif %}"
    )
    earlier = talk(
        user("a"), assistant("b", reasoning="r"), user("c"), assistant("d", reasoning="s")
    )
    assert "<think>s</think>d" in auto(tokenizer, plugin, last_only, earlier).text
    none = talk(user("a"), assistant("b"), user("c"), assistant("d", reasoning="r", weight=weight))
    if weight == 0:
        assert auto(tokenizer, plugin, source(thinking=""), none).trained
    else:
        with pytest.raises(RowError, match="the thinking of message 4"):
            auto(tokenizer, plugin, source(thinking=""), none)
    prompt = dataclasses.replace(earlier, messages=earlier.messages[:-1])
    assert auto(tokenizer, plugin, source(thinking=""), prompt, True).text


def test_thinking_in_the_text_is_thinking(tokenizer: Any, plugin: Auto) -> None:
    strips = source(text="{{ m.content.split('</think>') | last }}")
    for content in ("<think>\nr\n</think>\n\nb", [TextPart("<think>r</think>b")]):
        with pytest.raises(RowError, match="the thinking of message 2"):
            auto(tokenizer, plugin, strips, talk(user("a"), Message("assistant", content)))
    history = talk(user("a"), assistant("<think>r</think>b"), user("c"), assistant("d"))
    assert auto(tokenizer, plugin, strips, history).text
    asked = talk(user("what is </think>?"), assistant("d"))  # no thinking: a question
    assert auto(tokenizer, plugin, source(), asked).text


def test_each_shape_is_tried_once(
    tokenizer: Any, plugin: Auto, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewright_templates import auto as module

    seen: list[str] = []
    known = module._WORKER.render

    def counted(source: str, variables: dict[str, Any]) -> str:
        seen.append(source)
        return known(source, variables)

    monkeypatch.setattr(module._WORKER, "render", counted)
    text = source() + "{# another #}"
    counts = []
    for number in range(3):
        seen.clear()
        auto(tokenizer, plugin, text, talk(user(f"q{number}"), assistant(f"a{number}")))
        counts.append(len(seen))
    # a shape, and whether texts have to be parts, which is the same for all shapes
    assert counts == [counts[1] + 2, counts[1], counts[1]]
    seen.clear()
    auto(tokenizer, plugin, text, talk(user("q"), assistant("a", reasoning="r")))
    assert len(seen) == counts[1] + 1


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("qwen3.jinja", None),
        ("qwen2_5.jinja", "the thinking of message 5"),
        ("llama3.jinja", "a tool call of message 2|the tools"),
    ],
)
def test_official_templates(tokenizer: Any, plugin: Auto, name: str, missing: str | None) -> None:
    text = (TRL / name).read_text()
    if missing is None:
        assert auto(tokenizer, plugin, text, CALLED).trained
        assert auto(tokenizer, plugin, text, TALKS["tool"]).trained
    else:
        with pytest.raises(RowError, match=f"does not write ({missing})"):
            auto(tokenizer, plugin, text, CALLED)


@pytest.mark.parametrize("part", ["tools", "calls", "thinking"])
def test_pairs_labels_and_prompts(tokenizer: Any, plugin: Auto, part: str) -> None:
    answer = [Message("assistant", "", reasoning="hm", tool_calls=[CALL])]
    other, prompt = [Message("assistant", "no")], [user("a")]
    rows: list[Row] = [
        Preference(prompt, answer, other, [WEATHER]),
        Preference(prompt, other, answer, [WEATHER]),
        Unpaired(prompt, answer, False, [WEATHER]),
        Prompt(prompt, [WEATHER]),
    ]
    tokeniser = Tokeniser(tokenizer, Auto.info)

    def encoded(text: str) -> list[Any]:
        def asked(conversation: Conversation, add: bool) -> Rendered:
            return auto(tokenizer, plugin, text, conversation, add)

        return pairs.encode_rows(rows, asked, tokeniser)

    assert all(isinstance(one, dict) for one in encoded(source()))
    refused = [isinstance(one, RowError) for one in encoded(source(**{part: ""}))]
    assert refused == [True, True, True, part == "tools"]
