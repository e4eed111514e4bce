"""Replies parsed while they arrive: as the whole text, however it is split, in every template."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunewright import RowError
from tunewright.types import Conversation, Message, TemplateRequest, ToolCall
from tunewright_hf.templates.info import ReplyForm, TemplateInfo
from tunewright_hf.templates.jinja_template import JinjaTemplate, from_file
from tunewright_hf.templates.reply_parser import parse
from tunewright_hf.templates.reply_stream import ReplyEvent, ReplyStream, whole_reply

PLUGINS = Path(__file__).parents[2] / "plugins"
HERMES = TemplateInfo(
    stop=("<|im_end|>",),
    thinking=("<think>", "</think>"),
    reply=ReplyForm(call=r"<tool_call>\s*", end=r"\s*</tool_call>"),
)
WORDS = [" ", "\n", "\n\n", "yes", "<", "</", "{", "}", "]", '"', "7", "é🙂", "<|im_end|>"]
WORDS += [
    "<think>",
    "</think>",
    '{"name": "f", "arguments": {"a": "}\\\\\\" <"}}',
    '{"a": 1}',
    "[f(a=1), g()]",
]
TOOL = {"type": "function", "function": {"name": "get_it", "parameters": {"type": "object"}}}
CALLS = [ToolCall("get_it", {"city": "Oslo <x>", "n": [1, {"a": None}]}), ToolCall("get_it", {})]
ANSWERS = [
    Message("assistant", "Yes, 5."),
    Message("assistant", "Yes.", "I think.\n\nSo"),
    Message("assistant", "", None, CALLS[:1]),
    Message("assistant", "I ask.", "Well", CALLS),
]


def _forms() -> dict[Any, tuple[TemplateInfo, list[str]]]:
    """Each way of marking replies once, of all templates in this repository, with answers."""
    found: dict[Any, tuple[TemplateInfo, list[str]]] = {}
    for file in sorted(PLUGINS.glob("**/templates/*.jinja")):
        template = from_file(file)
        info = template.head
        if (info.thinking, info.reply) not in found and (info.thinking or info.reply.call):
            rendered = [_answer(template, message) for message in ANSWERS]
            found[info.thinking, info.reply] = info, [text for text in rendered if text]
    return found


def _answer(template: type[JinjaTemplate], message: Message) -> str:
    """Text that the template writes for an answer; "" if it cannot write it."""
    asked = Conversation([Message("user", "Hi"), message], [TOOL] if message.tool_calls else [])
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    try:
        made = template(template.Options()).format_template(
            TemplateRequest(asked, special_tokens=special)
        )
    except RowError:
        return ""
    return "".join(made.text[span.start : span.end] for span in made.trained)


FORMS = _forms()


def _fragments(answers: list[str], info: TemplateInfo) -> list[str]:
    """Parts of the answers, and halves of those."""
    parts = [part for text in answers for part in re.split(r"(<[^>]*>|\[[A-Z_/]+\]|\n)", text)]
    parts = sorted({*filter(None, parts), *info.words, *info.stop})
    return [*parts, *(part[: len(part) // 2] for part in parts), *WORDS]


@st.composite
def replies(draw: st.DrawFn) -> tuple[TemplateInfo, list[str], bool, bool]:
    """A template, a reply in pieces, whether the prompt has opened the thinking, and tools."""
    info, answers = draw(st.sampled_from(list(FORMS.values())))
    part = st.sampled_from(answers) | st.sampled_from(_fragments(answers, info))
    text = "".join(draw(st.lists(part, max_size=6)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return info, pieces, draw(st.booleans()), draw(st.booleans())


def joined(events: list[ReplyEvent]) -> tuple[str, str | None, list[object]]:
    text = "".join(event.text for event in events if event.kind == "text")
    reasoning = "".join(event.text for event in events if event.kind == "reasoning")
    return text, reasoning or None, [event.call for event in events if event.kind == "call"]


@given(replies())
@example((HERMES, ["<think>a</th", 'ink>\n<tool_call>{"name": "f"}</tool', "_call>"], False, True))
def test_events_joined_are_the_parse_of_the_whole(
    case: tuple[TemplateInfo, list[str], bool, bool],
) -> None:
    info, pieces, in_thinking, has_tools = case
    tools = None if has_tools else []
    stream = ReplyStream(info, tools, in_thinking=in_thinking)
    events = [event for piece in pieces for event in stream.push(piece)] + stream.finish()
    whole = parse("".join(pieces), info, tools, in_thinking=in_thinking)
    assert joined(events) == (whole.content, whole.reasoning, whole.tool_calls)
    assert all(event.text or event.call for event in events)
    at_once = whole_reply("".join(pieces), info, tools, in_thinking=in_thinking)
    assert joined(at_once) == joined(events)


@pytest.mark.parametrize("info", [info for info, _ in FORMS.values()], ids=range(len(FORMS)))
def test_text_without_markers_is_not_held_back(info: TemplateInfo) -> None:
    stream = ReplyStream(info, None)
    assert joined(stream.push("Well, it is 5 o'clock. ") + stream.push("Ok,"))[0] == (
        "Well, it is 5 o'clock. Ok,"
    )


def test_thinking_arrives_while_it_is_generated() -> None:
    stream = ReplyStream(HERMES, None)
    pieces = ["<thi", "nk>\n", "a ", "b</", "b\n</think", ">\n\nyes"]
    assert [joined(stream.push(piece))[:2] for piece in pieces] == [
        ("", None),
        ("", None),
        ("", "a"),
        ("", " b"),
        ("", "</b"),
        ("yes", None),
    ]


def test_thinking_that_the_prompt_has_opened_and_nothing_closes() -> None:
    message = parse("hm, so", HERMES, in_thinking=True)
    assert (message.content, message.reasoning) == ("", "hm, so")


def test_a_call_arrives_before_the_text_behind_it() -> None:
    stream = ReplyStream(HERMES, None)
    assert joined(stream.push('I ask.\n<tool_call>\n{"name": "f"'))[0] == "I ask."
    assert joined(stream.push("}\n</tool_call>")) == ("", None, [])  # may go on
    events = stream.push("\nOk")
    assert [event.kind for event in events] == ["call", "text"]


def test_cost_grows_with_the_length_of_a_reply() -> None:
    """A model that floods: text, white space, one long argument."""
    for flood in (" ", "<", '{"a": [', "x" * 50, "</think"):
        for info, answers in FORMS.values():
            opening = answers[-1][: answers[-1].find("Oslo")]
            stream = ReplyStream(info, None)
            started = time.process_time()
            for piece in [opening, *[flood] * 2000]:
                stream.push(piece)
            stream.finish()
            assert time.process_time() - started < 2, (flood, info.reply)
