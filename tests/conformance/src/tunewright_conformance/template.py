"""Tests for templates: the expected text, of which exactly the assistant's part is trained."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tunewright.registry import Entry
from tunewright.types import Rendered
from tunewright_conformance import goldens
from tunewright_conformance.bench import on_bench
from tunewright_conformance.cases import Case, Renderer, cases
from tunewright_conformance.suite import Suite

if TYPE_CHECKING:
    from tunewright_hf.tokenization.encode import Tokeniser


class TestTemplate(Suite):
    """Tests of the rendered text."""

    kinds = ("template",)

    @pytest.fixture
    def template(self, entry: Entry) -> Renderer:
        return Renderer(on_bench(entry))

    def test_golden(self, entry: Entry) -> None:
        """Text and trained parts of every case equal the reviewed golden."""
        made = goldens.golden(entry)
        hint = (
            f"make it with python -m tunewright_conformance.make_goldens {entry.name} "
            "FOLDER, and review it"
        )
        assert made, f"there is no goldens/{entry.name}.json: {hint}"
        found = goldens.of_cases(on_bench(entry))
        for name, expected in made["cases"].items():
            assert found[name] == expected, name
        assert set(found) == set(made["cases"]), hint

    def test_official(self, entry: Entry, template: Renderer) -> None:
        """The text equals that of the model's own template, except where the golden gives a
        reason."""
        from jinja2 import TemplateError

        official = goldens.official(entry)
        if official is None:
            pytest.skip("its golden declares no official template")
        for case, rendered in template.accepted():
            try:
                expected = template.plain(case, official.source)
            except TemplateError:
                continue  # it refuses the conversation
            if case.name in official.differs:
                assert rendered.text != expected, f"{case.name} is equal: take it out of `differs`"
            else:
                assert rendered.text == expected, case.name

    def test_trains_the_assistant_only(self, template: Renderer) -> None:
        """Each answer of the assistant is trained, in order, and nothing else."""
        for case, rendered in template.answered():
            spans = texts(rendered)
            assert len(spans) == len(case.answers), case.name
            for number, span in zip(case.answers, spans, strict=True):
                message = case.messages[number]
                assert message["content"].strip() in span, case.name
                for call in message.get("tool_calls", []):
                    assert call["function"]["name"] in span, case.name
                if "tool_calls" not in message and "reasoning_content" not in message:
                    assert not unexplained(span, message, template), (
                        f"{case.name}: trained besides the answer"
                    )
            foreign = case.written("user", "system", "tool")
            assert not [text for text in foreign if text.strip() in "\n".join(spans)], case.name

    def test_trains_the_stop_token(self, template: Renderer) -> None:
        """Trained text ends with a stop token: otherwise the model never learns to stop."""
        for case, rendered in template.answered():
            for span in texts(rendered):
                assert span.endswith(template.stop), (
                    f"{case.name}: {span!r} ends with none of {template.stop}"
                )

    def test_prompt_is_a_prefix(self, template: Renderer) -> None:
        """A trained span starts exactly at the end of that turn's prompt."""
        for case, rendered in template.answered():
            for number, span in zip(case.answers, rendered.trained, strict=True):
                prompt = template.render(case.prompt_of(number))
                assert rendered.text[: span.start] == prompt.text, (
                    f"{case.name}, message {number + 1}"
                )

    def test_prompt_is_not_trained(self, template: Renderer) -> None:
        """In a prompt, nothing after the last answer is trained."""
        for case, rendered in template.accepted():
            if case.add_generation_prompt:
                end = rendered.text.find(case.written("user", "tool")[-1])
                assert all(span.end <= end for span in rendered.trained), case.name

    def test_keeps_text(self, template: Renderer) -> None:
        """No character within a message is changed."""
        case = cases()["unicode"]
        text = template.render(case).text
        assert all(message["content"] in text for message in case.messages)

    def test_keeps_edges(self, template: Renderer) -> None:
        """White space at the start and end of a message is kept."""
        case = cases()["edges"]
        text = template.render(case).text
        assert all(message["content"] in text for message in case.messages)

    def test_weights(self, template: Renderer) -> None:
        """A message with weight 0 is not trained, other weights are kept, and the text stays the
        same."""
        plain = cases()["turns"]
        weighted = [dict(message) for message in plain.messages]
        first, second, _ = plain.answers
        weighted[first]["weight"], weighted[second]["weight"] = 0.0, 0.5
        before, after = template.render(plain), template.render(replace(plain, messages=weighted))
        assert after.text == before.text
        kept = [(span.start, span.end) for span in before.trained[1:]]
        assert [(span.start, span.end) for span in after.trained] == kept
        assert [span.weight for span in after.trained] == [0.5, 1.0]

    def test_reply_is_parsed_back(self, template: Renderer) -> None:
        """A rendered answer, parsed as a reply, gives the same message: text, thinking and tool
        calls."""
        for case, rendered in template.answered():
            for number, span in zip(case.answers, texts(rendered), strict=True):
                message = case.conversation().messages[number]
                stop = next((token for token in template.stop if span.rstrip().endswith(token)), "")
                reply = template.plugin.parse_reply(
                    span.rstrip().removesuffix(stop), case.tools or None
                )
                place = f"{case.name}, message {number + 1}"
                assert str(reply.content).strip() == str(message.content).strip(), place
                calls = [
                    [(call.name, call.arguments) for call in each.tool_calls]
                    for each in (reply, message)
                ]
                assert calls[0] == calls[1], place
                # templates may leave it out of history
                if message.reasoning and message.reasoning.strip() in span:
                    assert reply.reasoning == message.reasoning.strip(), place
                else:
                    assert reply.reasoning is None, place

    def test_exported_template_says_the_same(self, template: Renderer) -> None:
        """The chat template saved with a trained model renders the same text in plain Jinja."""
        for case, rendered in template.accepted():
            assert template.plain(case) == rendered.text, case.name


class TestTokens(Suite):
    """Tests of tokens, with byte-level and sentencepiece-like tokenizers."""

    kinds = ("template",)

    @pytest.fixture(params=["byte_level", "metaspace"])
    def template(self, entry: Entry, request: pytest.FixtureRequest) -> Renderer:
        return Renderer(on_bench(entry), request.param)

    @pytest.fixture
    def tokeniser(self, template: Renderer) -> "Tokeniser":
        from tunewright_hf.tokenization.encode import Tokeniser

        return Tokeniser(template.tokenizer, template.plugin.info)

    def test_prompt_ids(self, template: Renderer, tokeniser: "Tokeniser") -> None:
        """A row starts with exactly the ids that an engine sends for that answer."""
        for case, rendered in template.answered():
            ids = tokeniser.encode(rendered).input_ids
            for number, span in zip(case.answers, rendered.trained, strict=True):
                prompt = template.render(case.prompt_of(number))
                # otherwise test_prompt_is_a_prefix fails
                if prompt.text == rendered.text[: span.start]:
                    asked = tokeniser.encode_prompt(prompt)
                    assert ids[: len(asked)] == asked, f"{case.name}, message {number + 1}"

    def test_labels(self, template: Renderer, tokeniser: "Tokeniser") -> None:
        """Labels are the ids of trained tokens, and -100 elsewhere."""
        for case, rendered in template.answered():
            row = tokeniser.encode(rendered)
            pairs = [
                pair for pair in zip(row.input_ids, row.labels, strict=True) if pair[1] != -100
            ]
            assert all(token == label for token, label in pairs), case.name
            trained = template.tokenizer.decode([label for _, label in pairs])
            assert squeezed(trained) == squeezed("".join(texts(rendered))), case.name

    @pytest.mark.parametrize("role", ["system", "user", "tool", "assistant"])
    def test_control_tokens_in_data(
        self, template: Renderer, tokeniser: "Tokeniser", role: str
    ) -> None:
        """A control token spelled in a message becomes text, never the token itself."""
        words = set(template.plugin.info.words)
        control = template.control - words if role == "assistant" else template.control | words
        spelled, harmless = (
            tokeniser.encode(template.render(written(cases()["tool"], role, text))).input_ids
            for text in (" ".join(sorted(control)), "nothing")
        )
        for token in control:
            known = template.tokenizer.convert_tokens_to_ids(token)
            assert spelled.count(known) == harmless.count(known), (
                f"{role} can write the token {token}"
            )


def texts(rendered: Rendered) -> list[str]:
    """The trained parts of a text."""
    return [rendered.text[span.start : span.end] for span in rendered.trained]


def squeezed(text: str) -> str:
    """Text without white space: tokenizers treat it differently, and some write ▁ in control tokens
    as a space."""
    return "".join(text.replace("▁", " ").split())


def unexplained(span: str, message: dict[str, Any], template: Renderer) -> str:
    """The rest of a trained span without the answer, thinking and stop markers, and headers."""
    info = template.plugin.info
    span = span.replace(message["content"].strip(), "", 1)
    if info.reply.drop:
        span = re.sub(info.reply.drop, "", span)
    for word in (*(info.thinking or ()), *template.stop):
        span = span.replace(word, "")
    return span.strip()


def written(case: Case, role: str, text: str) -> Case:
    """The case with `text` in each message of a role; beside a call not all templates accept
    text."""
    messages = [dict(message) for message in case.messages]
    for message in messages:
        if message["role"] == role and "tool_calls" not in message:
            message["content"] = f"See {text} here."
    return replace(case, messages=messages)
