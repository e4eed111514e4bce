"""Text and spans of our own templates."""

import json
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from shared import SHARED
from template_cases import FILES, SPECIAL, TALKS, assistant, render, talk, template, trained, user
from tunewright import RowError
from tunewright.types import Conversation, Message, Span, ToolCall
from tunewright_hf.conversation import template_data
from tunewright_hf.jinja import from_file

GOLDENS = SHARED / "goldens/templates"
TRL = Path(str(find_spec("trl").origin)).parent  # type: ignore[union-attr]  # importing it takes seconds
OFFICIAL = {"qwen": "qwen2_5", "qwen3": "qwen3", "llama3": "llama3", "llama3_1": "llama3_1"}
#: what our template writes on purpose, and the official one does not
ADDED = {
    "qwen": {"thinking", "thinking_history", "tool_thinking"},
    "llama3": {"thinking", "thinking_history", "tool_thinking", "tool", "tool_text", "tools_parallel", "tool_offered"},
    "llama3_1": {"thinking", "thinking_history", "tool_thinking", "tool_text", "tools_parallel"},
}


# ---- equal to the model's own, and to the golden vectors ---------------------------------------------


def official_text(name: str, conversation: Conversation, **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    source = (TRL / f"chat_templates/{OFFICIAL[name]}.jinja").read_text()
    data = template_data(conversation, media=False)
    return _official(render_jinja_template, source, data, variables)


def _official(renderer: Any, source: str, data: dict[str, Any], variables: dict[str, Any]) -> str:
    found, _ = renderer(
        [[dict(message) for message in data["messages"]]],
        tools=data["tools"], chat_template=source, **SPECIAL, **variables,
    )  # fmt: skip
    return found[0]


def _official_cases() -> list[Any]:
    cases = product(OFFICIAL, TALKS, (None, True, False), (False, True))
    return [case for case in cases if case[1] not in ADDED.get(case[0], ()) and (case[2] is None or case[0] == "qwen3")]


@pytest.mark.parametrize(("name", "sort", "thinking", "prompt"), _official_cases())
def test_text_equals_the_official_template(name: str, sort: str, thinking: bool | None, prompt: bool) -> None:
    conversation = TALKS[sort]
    variables: dict[str, Any] = {"add_generation_prompt": prompt}
    if thinking is not None:
        variables["enable_thinking"] = thinking
    made = template(name, enable_thinking=thinking, role_order="any")
    assert render(made, conversation, prompt=prompt).text == official_text(name, conversation, **variables)


def golden_talk(case: dict[str, Any]) -> Conversation:
    messages = [Message("system", case["system"])] if case["system"] else []
    for message in case["messages"]:
        role, content = message["role"], message["content"]
        if role == "function":
            call = json.loads(content)
            messages.append(Message("assistant", tool_calls=[ToolCall(call["name"], call["arguments"])]))
        else:
            messages.append(Message("tool" if role == "observation" else role, content))
    tools = [{"type": "function", "function": tool} for tool in json.loads(case["tools"] or "[]")]
    return Conversation(messages, tools, {"date_string": "02 Jan 2025"})


GOLDEN_NAMES = sorted(FILES.keys() - {"llama3_1"})


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="the golden vectors are on our own machines only")
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_text_equals_the_goldens(name: str) -> None:
    golden = json.loads((GOLDENS / f"{name}.json").read_text())
    made = template(name)
    assert (made.info.default_system or "") == golden["default_system"]
    for case in golden["cases"]:
        found = render(made, golden_talk(case)).text
        expected = "".join(prompt + answer for prompt, answer in case["pairs"])
        if name == "llama2":  # Llama 2's own: spaces round the answer
            expected = "".join(f"{prompt} {answer.replace('<EOS>', ' <EOS>')}" for prompt, answer in case["pairs"])
        if name == "qwen3":  # Qwen3's own: no empty thinking but in the last answer
            *earlier, (prompt, answer) = case["pairs"]
            expected = "".join(p + a.replace("<think>\n\n</think>\n\n", "") for p, a in earlier) + prompt + answer
        assert found == expected, case["id"]


def test_differences_from_the_goldens_are_told() -> None:
    assert {name for name in FILES if "LLaMA-Factory" in from_file(FILES[name]).head.notes} == {"llama2", "qwen3"}


# ---- what is trained ---------------------------------------------------------------------------------

STOP = {"qwen": "<|im_end|>", "qwen3": "<|im_end|>", "chatml": "<|im_end|>", "llama3": "<|eot_id|>",
        "llama3_1": "<|eot_id|>", "llama2": " <EOS>", "empty": ""}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FILES))
def test_exactly_the_answers_and_their_stop_tokens_are_trained(name: str) -> None:
    answers = ["Hello!", "4.", "Bye!"]
    stop = STOP.get(name, "<EOS>")
    before = " " if name == "llama2" else ""
    expected = [f"{before}{answer}{stop}" for answer in answers]
    if name == "qwen3":
        expected[-1] = f"<think>\n\n</think>\n\n{expected[-1]}"
    assert trained(render(template(name), TALKS["multi"])) == expected


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"llama3_1"}))
def test_calls_of_tools_are_trained_and_their_results_are_not(name: str) -> None:
    spans = trained(render(template(name), TALKS["tool_text"]))
    assert len(spans) == 2
    assert "I look it up.\n" in spans[0] and '{"city": "Zürich", "days": 3}' in spans[0]
    assert not any("tool_response" in span or span.startswith("21<") for span in spans)


@pytest.mark.parametrize("name", sorted(FILES))
def test_recorded_thinking_is_trained(name: str) -> None:
    assert "<think>\nLet me add.\n</think>\n\n4." in trained(render(template(name), TALKS["thinking"]))[0]


def test_empty_thinking_is_the_prompts_where_thinking_is_off() -> None:
    answered = TALKS["single"]
    on, off = (trained(render(template("qwen3", enable_thinking=value), answered)) for value in (True, False))
    assert on == ["<think>\n\n</think>\n\nFine, thank you!<|im_end|>"]
    assert off == ["Fine, thank you!<|im_end|>"]


def test_loss_weights_of_messages() -> None:
    conversation = talk(
        user("a"), assistant("one", weight=0), user("b"), assistant("two", weight=0.5), user("c"), assistant("three")
    )
    rendered = render(template("chatml"), conversation)
    assert trained(rendered) == ["two<|im_end|>", "three<|im_end|>"]
    assert [span.weight for span in rendered.trained] == [0.5, 1]


def test_only_the_last_answer_is_trained_where_asked() -> None:
    assert trained(render(template("chatml", train_on="last"), TALKS["multi"])) == ["Bye!<|im_end|>"]


def test_a_weight_on_a_user_is_an_error() -> None:
    with pytest.raises(RowError, match=r"data.jsonl:7: message 1 is from user and has a loss weight"):
        render(template("chatml"), talk(Message("user", "a", weight=1), assistant("b")))


# ---- the prompt --------------------------------------------------------------------------------------


def _rewritten(name: str, number: int, conversation: Conversation, thinking: bool | None) -> bool:
    """Whether Qwen3's own template writes this answer, or the prompt before it, in another way afterwards."""
    message, last = conversation.messages[number], number == len(conversation.messages) - 1
    thought = bool(message.reasoning) or "<think>" in str(message.content)
    return name == "qwen3" and thinking is False and (thought or not last)


@pytest.mark.parametrize(("name", "sort", "thinking"), [*product(FILES, TALKS, (None, False))])
def test_the_prompt_is_a_prefix_of_what_is_trained(name: str, sort: str, thinking: bool | None) -> None:
    if name == "llama3_1" and sort in {"tool_text", "tools_parallel"}:
        pytest.skip("Llama 3.1 refuses it")
    if name == "qwen3" and sort == "tool_thinking":
        pytest.skip("declared: Qwen3's own takes the thinking out of earlier answers")
    made = template(name, enable_thinking=thinking)
    whole, conversation = render(made, TALKS[sort]), TALKS[sort]
    answers = [number for number, message in enumerate(conversation.messages) if message.role == "assistant"]
    spans = whole.trained if name != "empty" or sort != "empty_answer" else [Span(len(whole.text), len(whole.text))]
    for number, span in zip(answers, spans, strict=True):
        if not _rewritten(name, number, conversation, thinking):
            prompt = render(made, talk(*conversation.messages[:number], tools=conversation.tools), prompt=True).text
            assert whole.text.startswith(prompt) and span.start == len(prompt)


# ---- export ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "thinking"), [*product(FILES, (None, False))])
def test_the_exported_template_renders_the_same_text(name: str, thinking: bool | None) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    options = {"system": 'My "own"\n'} if from_file(FILES[name]).head.default_system else {}
    made = template(name, enable_thinking=thinking, role_order="any", **options)
    source = made.chat_template()
    assert "generation %}" not in source and "tunewright" not in source
    for sort, prompt in product(TALKS, (False, True)):
        if name == "llama3_1" and sort in ADDED[name]:
            continue
        data = template_data(TALKS[sort], media=False)
        text = _official(render_jinja_template, source, data, {"add_generation_prompt": prompt})
        assert text == render(made, TALKS[sort], prompt=prompt).text, sort
