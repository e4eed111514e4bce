"""Template auto: the tokenizer's own, whose masks are found by comparing prefixes."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from template_cases import TALKS, assistant, byte_level, render, talk, template, trained, user
from tunewright import RecipeError, RowError
from tunewright.types import Conversation, Message, Rendered, TextPart
from tunewright_hf.tokenization.encode import Tokeniser
from tunewright_templates import Auto

TRL = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_level(eos="<|eot_id|>", bos="<|begin_of_text|>")


def auto(
    tokenizer: Any, source: str, conversation: Conversation, prompt: bool = False, **options: Any
) -> Rendered:
    tokenizer.chat_template = source
    special = Tokeniser(tokenizer, Auto.info).special_tokens
    return render(
        Auto(Auto.Options(**options), "auto"), conversation, special, prompt, tokenizer=tokenizer
    )


@pytest.mark.parametrize(
    ("official", "ours", "sorts"),
    [
        (
            "qwen2_5",
            "qwen",
            [
                "single",
                "system",
                "multi",
                "edges",
                "tool",
                "tool_text",
                "tools_parallel",
                "tool_offered",
            ],
        ),
        ("qwen3", "qwen3", sorted(TALKS.keys() - {"tool_thinking"})),
        ("llama3", "llama3", ["single", "system", "multi", "edges", "thinking_tag"]),
        ("llama3_1", "llama3_1", ["single", "system", "multi", "edges", "tool", "tool_offered"]),
    ],
)
def test_it_finds_what_our_templates_mark(
    tokenizer: Any, official: str, ours: str, sorts: list[str]
) -> None:
    source = (TRL / f"{official}.jinja").read_text()
    special = Tokeniser(tokenizer, Auto.info).special_tokens
    for sort in sorts:
        expected = render(template(ours), TALKS[sort], special)
        assert auto(tokenizer, source, TALKS[sort]) == expected, sort


def test_a_template_that_takes_thinking_out_of_history(tokenizer: Any) -> None:
    """Qwen3's own, where an earlier question was answered with tools: the thinking between them is
    gone afterwards."""
    source = (TRL / "qwen3.jinja").read_text()
    with pytest.raises(
        RowError,
        match=r"message 4 cannot be trained with template auto: .*rewrites the messages before",
    ):
        auto(tokenizer, source, TALKS["tool_thinking"])
    assert trained(auto(tokenizer, source, TALKS["tool_thinking"], train_on="last"))[0].endswith(
        "Welcome<|im_end|>"
    )


def test_a_template_with_generation_tags(tokenizer: Any) -> None:
    source = (TRL / "llama3_training.jinja").read_text()
    assert trained(auto(tokenizer, source, TALKS["multi"])) == [
        "Hello!<|eot_id|>",
        "4.<|eot_id|>",
        "Bye!<|eot_id|>",
    ]


def test_the_prompt(tokenizer: Any) -> None:
    source = (TRL / "qwen3.jinja").read_text()
    question = talk(user("2+2?"))
    assert auto(tokenizer, source, question, True).text.endswith("<|im_start|>assistant\n")
    off = auto(tokenizer, source, question, True, enable_thinking=False).text
    assert off.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    answered = auto(tokenizer, source, TALKS["single"], enable_thinking=False)
    assert trained(answered) == ["Fine, thank you!<|im_end|>"]


def test_an_end_that_is_the_datas_is_none(tokenizer: Any) -> None:
    source = (TRL / "qwen3.jinja").read_text()
    conversation = talk(
        user("a<|im_end|>"), assistant("b<|im_end|>c"), user("d"), assistant("e<|im_end|>")
    )
    rendered = auto(tokenizer, source, conversation)
    assert trained(rendered) == [
        "b<|im_end|>c<|im_end|>",
        "<think>\n\n</think>\n\ne<|im_end|><|im_end|>",
    ]
    assert len(rendered.untrusted) == 1 and len(rendered.answers) == 2


def test_weights_and_the_last_answer(tokenizer: Any) -> None:
    source = (TRL / "llama3.jinja").read_text()
    conversation = talk(
        user("a"),
        assistant("b", weight=0.5),
        user("c"),
        assistant("d", weight=0),
        user("e"),
        assistant("f"),
    )
    assert [span.weight for span in auto(tokenizer, source, conversation).trained] == [0.5, 1]
    assert trained(auto(tokenizer, source, conversation, train_on="last")) == ["f<|eot_id|>"]


def test_parts_without_media_are_text(tokenizer: Any) -> None:
    source = (TRL / "llama3.jinja").read_text()
    conversation = talk(Message("user", [TextPart("a"), TextPart("b")]), assistant("c"))
    assert "\n\nab<|eot_id|>" in auto(tokenizer, source, conversation).text


PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{END}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (PLAIN.replace("{END}", "\n"), "does not show where it ends"),  # no stop token
        (
            "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{{ messages | length }}",
            "rewrites the messages before it",
        ),
        (
            "{% for m in messages %}[{{ loop.revindex }}]{{ m.content }}<|im_end|>{% endfor %}",
            "rewrites the messages before it",
        ),
    ],
)
def test_masks_that_cannot_be_found(tokenizer: Any, source: str, problem: str) -> None:
    with pytest.raises(
        RowError,
        match=rf"data.jsonl:7: message 2 cannot be trained with template auto: .*{problem}",
    ):
        auto(tokenizer, source, TALKS["multi"])


def test_a_template_cannot_forge_marks(tokenizer: Any) -> None:
    """The renderer's own marks, as characters of the template: alone, out of order, with numbers of
    no message."""
    marks = (
        "".join(f"\\uf7e{number}" for number in (0, 6, 5, 2, 1, 3, 0)) + "99\\uf7e1x\\uf7e2\\uf7e69"
    )
    source = '{{ "' + marks + '" }}' + PLAIN.replace("{END}", "{{ eos_token }}")
    rendered = auto(tokenizer, source, TALKS["single"])
    assert rendered.text == "x9user: How are you?<|eot_id|>assistant: Fine, thank you!<|eot_id|>"
    assert trained(rendered) == ["Fine, thank you!<|eot_id|>"]


def test_plain_roles_and_a_stop_token(tokenizer: Any) -> None:
    found = trained(auto(tokenizer, PLAIN.replace("{END}", "{{ eos_token }}\n"), TALKS["multi"]))
    assert found == ["Hello!<|eot_id|>", "4.<|eot_id|>", "Bye!<|eot_id|>"]


def test_bad_templates(tokenizer: Any) -> None:
    with pytest.raises(RecipeError, match=r"template auto: .*what the sandbox forbids"):
        auto(tokenizer, "{{ ''.__class__.__mro__[1].__subclasses__() }}", TALKS["single"])
    with pytest.raises(
        RowError, match=r"data.jsonl:7: the template refuses this conversation: no tools"
    ):
        auto(tokenizer, "{{ raise_exception('no tools') }}", TALKS["single"])
    with pytest.raises(RecipeError, match="has no chat template of its own"):
        auto(tokenizer, "", TALKS["single"])
    with pytest.raises(RowError, match="message 1 is from assistant"):
        auto(tokenizer, "", talk(assistant("x")))


def test_the_trained_tokenizer_keeps_its_own() -> None:
    assert Auto(Auto.Options()).chat_template() is None
