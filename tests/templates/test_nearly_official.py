"""Templates that equal the model's own but for what their notes name: that difference is taken out,
and the rest is compared."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from template_cases import TALKS, render, template
from tunewright.types import Conversation
from tunewright_hf.templates.conversation import template_data

GOLDENS = Path(__file__).parents[1] / "conformance/src/tunewright_conformance/goldens/template"
OWN = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # type: ignore[union-attr]
SPECIAL = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
ASSISTANT, OPENED = "<｜Assistant｜>", "<｜Assistant｜><think>\n"
# DeepSeek's own drops all thinking
THOUGHT = {
    "thinking",
    "thinking_tag",
    "thinking_history",
    "tool_thinking",
}


def own_text(name: str, data: dict[str, Any], prompt: bool, **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    # which the documentation tells too
    nearly = json.loads((GOLDENS / f"{name}.json").read_text("utf-8"))["nearly"]
    found, _ = render_jinja_template(
        [data["messages"]],
        tools=data["tools"],
        chat_template=(OWN / nearly.removeprefix("trl:")).read_text(),
        add_generation_prompt=prompt,
        **SPECIAL,
        **variables,
    )
    text: str = found[0]
    return text


def with_text_arguments(conversation: Conversation) -> dict[str, Any]:
    """For DeepSeek's official template: arguments are text, and a message with calls only has no
    content."""
    data = json.loads(json.dumps(template_data(conversation, media=False)))
    for message in data["messages"]:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(
                call["function"]["arguments"], ensure_ascii=False
            )
        if "tool_calls" in message and not message["content"]:
            message["content"] = None
    return dict(data)


def asked(conversation: Conversation) -> Conversation:
    """Without its last message, which is the assistant's."""
    return replace(conversation, messages=conversation.messages[:-1])


@pytest.mark.parametrize("thinking", [None, True, False])
@pytest.mark.parametrize("sort", TALKS)
def test_glm_but_for_the_end(sort: str, thinking: bool | None) -> None:
    made, talk = template("glm4_moe", enable_thinking=thinking), TALKS[sort]
    variables = {} if thinking is None else {"enable_thinking": thinking}
    own = own_text("glm4_moe", template_data(talk, media=False), False, **variables)
    assert render(made, talk).text == own + "<|user|>"
    ours = render(made, asked(talk), prompt=True).text
    assert ours == own_text("glm4_moe", template_data(asked(talk), media=False), True, **variables)


@pytest.mark.parametrize("sort", sorted(TALKS.keys() - THOUGHT))
def test_deepseek3_but_for_the_offer_of_tools_and_the_thinking_in_the_prompt(sort: str) -> None:
    talk = replace(TALKS[sort], tools=[])
    made = template("deepseek3")
    assert render(made, talk, SPECIAL).text == own_text(
        "deepseek3", with_text_arguments(talk), False
    )
    own = own_text("deepseek3", with_text_arguments(asked(talk)), True)
    assert render(made, asked(talk), SPECIAL, prompt=True).text == own.replace(OPENED, ASSISTANT)


@pytest.mark.parametrize(
    "sort", sorted(TALKS.keys() - THOUGHT - {"tool", "tool_text"})
)  # its own forgets to end a single call
def test_deepseekr1_but_for_the_offer_of_tools_and_the_thinking_of_the_last_turn(sort: str) -> None:
    talk = replace(TALKS[sort], tools=[])
    made = template("deepseekr1")
    before, _, after = own_text("deepseekr1", with_text_arguments(talk), False).rpartition(
        ASSISTANT
    )
    assert render(made, talk, SPECIAL).text == f"{before}{OPENED}\n</think>\n\n{after}"
    own = own_text("deepseekr1", with_text_arguments(asked(talk)), True)
    # a prompt in which its own has no thinking, and ours had to close it
    if sort != "tools_parallel":
        assert render(made, asked(talk), SPECIAL, prompt=True).text == own
