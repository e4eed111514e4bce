"""Text and spans of our own templates."""

import json
import tomllib
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import TemplateError

from shared import SHARED
from template_cases import FILES, SPECIAL, TALKS, assistant, render, talk, template, trained, user
from tunewright import RowError
from tunewright.types import Conversation, Message, Span, ToolCall
from tunewright_conformance.cases import TODAY
from tunewright_hf.templates.conversation import template_data
from tunewright_hf.templates.jinja_template import from_file

GOLDENS = SHARED / "goldens/templates"
TRL = Path(str(find_spec("trl").origin)).parent  # type: ignore[union-attr]  # importing it takes seconds
REVIEWED = Path(__file__).parents[1] / "conformance/src/tunewright_conformance/goldens/template"


def _official() -> dict[str, str]:
    """Template → TRL's file of the model's own, as the conformance suite's goldens name it."""
    declared = {
        name: json.loads((REVIEWED / f"{name}.json").read_text()).get("official") for name in FILES
    }
    return {name: made["file"].removeprefix("trl:") for name, made in declared.items() if made}


def differs(name: str) -> dict[str, Any]:
    """Intended differences of our template from others: differs/NAME.toml, with reasons. Its keys
    are cases of the recorded goldens, those of its table `official` are TALKS."""
    file = Path(__file__).parent / f"differs/{name}.toml"
    return tomllib.loads(file.read_text("utf-8")) if file.exists() else {}


OFFICIAL = _official()


# ---- equal to the model's own, and to the golden vectors -----------------------------------------


def official_text(name: str, conversation: Conversation, **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    source = (TRL / "chat_templates" / OFFICIAL[name]).read_text()
    data = template_data(conversation, media=False)
    return _plain(render_jinja_template, source, data, variables)


def _plain(renderer: Any, source: str, data: dict[str, Any], variables: dict[str, Any]) -> str:
    found, _ = renderer(
        [[dict(message) for message in data["messages"]]],
        tools=data["tools"],
        chat_template=source,
        **SPECIAL,
        **variables,
    )
    return found[0]


@pytest.mark.parametrize(("name", "thinking"), [*product(OFFICIAL, (None, True, False))])
def test_text_equals_the_official_template(
    name: str, thinking: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "transformers.utils.chat_template_utils.datetime", SimpleNamespace(now=lambda: TODAY)
    )
    made, apart = (
        template(name, enable_thinking=thinking, role_order="any"),
        differs(name).get("official", {}),
    )
    for (sort, conversation), prompt in product(TALKS.items(), (False, True)):
        variables: dict[str, Any] = {"add_generation_prompt": prompt}
        if thinking is not None:
            variables["enable_thinking"] = thinking
        try:
            expected: str | None = official_text(name, conversation, **variables)
        except TemplateError:  # it refuses the conversation
            expected = None
        try:
            found: str | None = render(made, conversation, prompt=prompt).text
        except RowError:
            found = None
        if sort not in apart and expected is not None:
            assert found == expected, f"{sort}, prompt={prompt}"
        elif sort in apart and thinking is None and not prompt:
            assert found != expected, f"{sort} is equal: take it out of differs/{name}.toml"


def golden_talk(case: dict[str, Any]) -> Conversation:
    messages = [Message("system", case["system"])] if case["system"] else []
    for message in case["messages"]:
        role, content = message["role"], message["content"]
        if role == "function":
            call = json.loads(content)
            messages.append(
                Message("assistant", tool_calls=[ToolCall(call["name"], call["arguments"])])
            )
        else:
            messages.append(Message("tool" if role == "observation" else role, content))
    tools = [{"type": "function", "function": tool} for tool in json.loads(case["tools"] or "[]")]
    return Conversation(messages, tools, {"date_string": "02 Jan 2025"})


GOLDEN_NAMES = [name for name in sorted(FILES) if (GOLDENS / f"{name}.json").is_file()]


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="the golden vectors are on our own machines only")
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_text_equals_the_goldens(name: str) -> None:
    golden, apart = json.loads((GOLDENS / f"{name}.json").read_text()), differs(name)
    made = template(name)
    if "default_system" not in apart:
        assert (made.info.default_system or "") == golden["default_system"]
    for case in golden["cases"]:
        try:
            found = render(made, golden_talk(case)).text
        except RowError as error:
            found = str(error)
        # it may put EOS there while it encodes
        ends = ("", SPECIAL["eos_token"]) if golden["efficient_eos"] else ("",)
        expected = [
            "".join(prompt + answer + end for prompt, answer in case["pairs"]) for end in ends
        ]
        if case["id"] in apart:
            assert found not in expected, (
                f"{case['id']} is equal: take it out of differs/{name}.toml"
            )
        else:
            assert found in expected, case["id"]


# ---- what is trained -----------------------------------------------------------------------------

#: on these the tests below are exact; the conformance suite asks the same of all
CORE = [
    "alpaca",
    "chatml",
    "default",
    "empty",
    "llama2",
    "llama3",
    "llama3_1",
    "qwen",
    "qwen3",
    "vicuna",
]
STOP = {
    "qwen": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "llama2": " <EOS>",
    "empty": "",
}


@pytest.mark.parametrize("name", CORE)
def test_exactly_the_answers_and_their_stop_tokens_are_trained(name: str) -> None:
    answers = ["Hello!", "4.", "Bye!"]
    stop = STOP.get(name, "<EOS>")
    before = " " if name == "llama2" else ""
    expected = [f"{before}{answer}{stop}" for answer in answers]
    if name == "qwen3":
        expected[-1] = f"<think>\n\n</think>\n\n{expected[-1]}"
    assert trained(render(template(name), TALKS["multi"])) == expected


@pytest.mark.parametrize("name", [name for name in CORE if name != "llama3_1"])
def test_calls_of_tools_are_trained_and_their_results_are_not(name: str) -> None:
    spans = trained(render(template(name), TALKS["tool_text"]))
    assert len(spans) == 2
    assert "I look it up.\n" in spans[0] and '{"city": "Zürich", "days": 3}' in spans[0]
    assert not any("tool_response" in span or span.startswith("21<") for span in spans)


@pytest.mark.parametrize("name", CORE)
def test_recorded_thinking_is_trained(name: str) -> None:
    assert (
        "<think>\nLet me add.\n</think>\n\n4."
        in trained(render(template(name), TALKS["thinking"]))[0]
    )


def test_empty_thinking_is_the_prompts_where_thinking_is_off() -> None:
    answered = TALKS["single"]
    on, off = (
        trained(render(template("qwen3", enable_thinking=value), answered))
        for value in (True, False)
    )
    assert on == ["<think>\n\n</think>\n\nFine, thank you!<|im_end|>"]
    assert off == ["Fine, thank you!<|im_end|>"]


def test_loss_weights_of_messages() -> None:
    conversation = talk(
        user("a"),
        assistant("one", weight=0),
        user("b"),
        assistant("two", weight=0.5),
        user("c"),
        assistant("three"),
    )
    rendered = render(template("chatml"), conversation)
    assert trained(rendered) == ["two<|im_end|>", "three<|im_end|>"]
    assert [span.weight for span in rendered.trained] == [0.5, 1]


def test_only_the_last_answer_is_trained_where_asked() -> None:
    assert trained(render(template("chatml", train_on="last"), TALKS["multi"])) == [
        "Bye!<|im_end|>"
    ]


def test_a_weight_on_a_user_is_an_error() -> None:
    with pytest.raises(
        RowError, match=r"data.jsonl:7: message 1 is from user and has a loss weight"
    ):
        render(template("chatml"), talk(Message("user", "a", weight=1), assistant("b")))


# ---- the prompt ----------------------------------------------------------------------------------


def _rewritten(name: str, number: int, conversation: Conversation, thinking: bool | None) -> bool:
    """Whether Qwen3's own template writes this answer, or the prompt before it, in another way
    afterwards."""
    message, last = conversation.messages[number], number == len(conversation.messages) - 1
    thought = bool(message.reasoning) or "<think>" in str(message.content)
    return name == "qwen3" and thinking is False and (thought or not last)


@pytest.mark.parametrize(("name", "sort", "thinking"), [*product(CORE, TALKS, (None, False))])
def test_the_prompt_is_a_prefix_of_what_is_trained(
    name: str, sort: str, thinking: bool | None
) -> None:
    if name == "llama3_1" and sort == "tools_parallel":
        pytest.skip("Llama 3.1 refuses it")
    if name == "qwen3" and sort == "tool_thinking":
        pytest.skip("declared: Qwen3's own takes the thinking out of earlier answers")
    made = template(name, enable_thinking=thinking)
    whole, conversation = render(made, TALKS[sort]), TALKS[sort]
    answers = [
        number
        for number, message in enumerate(conversation.messages)
        if message.role == "assistant"
    ]
    spans = (
        whole.trained
        if name != "empty" or sort != "empty_answer"
        else [Span(len(whole.text), len(whole.text))]
    )
    for number, span in zip(answers, spans, strict=True):
        if not _rewritten(name, number, conversation, thinking):
            prompt = render(
                made, talk(*conversation.messages[:number], tools=conversation.tools), prompt=True
            ).text
            assert whole.text.startswith(prompt) and span.start == len(prompt)


# ---- export --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "thinking"), [*product(FILES, (None, False))])
def test_the_exported_template_renders_the_same_text(name: str, thinking: bool | None) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    options = {"system": 'My "own"\n'} if from_file(FILES[name]).head.default_system else {}
    made = template(name, enable_thinking=thinking, role_order="any", **options)
    source = made.chat_template()
    assert "generation %}" not in source and "tunewright" not in source
    for sort, prompt in product(TALKS, (False, True)):
        try:
            ours = render(made, TALKS[sort], prompt=prompt).text
        except RowError:
            continue  # refused, with a reason that other tests ask for
        data = template_data(TALKS[sort], media=False)
        assert (
            _plain(render_jinja_template, source, data, {"add_generation_prompt": prompt}) == ours
        ), sort
