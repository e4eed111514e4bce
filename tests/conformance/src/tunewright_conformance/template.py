"""What is asked of every template: the right text, and of it, the assistant's part and nothing else is trained."""

from dataclasses import replace
from typing import Any

import pytest

from tunewright.registry import Entry, Handle
from tunewright.types import Rendered
from tunewright_conformance import goldens
from tunewright_conformance.bench import on_bench
from tunewright_conformance.cases import SPECIAL, accepted, cases, render, render_plain
from tunewright_conformance.suite import Suite


class TestTemplate(Suite):
    kinds = ("template",)

    @pytest.fixture
    def template(self, entry: Entry) -> Handle:
        return on_bench(entry)

    def test_golden(self, entry: Entry, template: Handle) -> None:
        """Text and trained parts of every case are what was reviewed and written down."""
        made = goldens.golden(entry)
        hint = f"make it with python -m tunewright_conformance.make_goldens {entry.name}, and review it"
        assert made, f"there is no goldens/{entry.name}.json: {hint}"
        found = goldens.of_cases(template)
        for name, expected in made["cases"].items():
            assert found[name] == expected, name
        assert set(found) == set(made["cases"]), hint

    def test_official(self, entry: Entry, template: Handle) -> None:
        """The text is that of the model's own template, wherever the golden does not say why it differs."""
        official = goldens.official(entry)
        if official is None:
            pytest.skip("its golden declares no official template")
        rendered = {case.name: rendered.text for case, rendered in accepted(template)}
        for name, text in rendered.items():
            expected = goldens.render_official(official.source, cases()[name])
            if expected is None:
                continue  # the official template refuses the conversation
            if name in official.differs:
                assert text != expected, f"{name} is equal: take it out of `differs`"
            else:
                assert text == expected, name

    def test_trains_the_assistant_only(self, template: Handle) -> None:
        """Each answer of the assistant is trained, in order, and nothing that others wrote."""
        for case, rendered in accepted(template):
            spans = texts(rendered)
            assert len(spans) == len(case.answers), case.name
            for number, span in zip(case.answers, spans, strict=True):
                message = case.messages[number]
                assert message["content"].strip() in span, case.name
                for call in message.get("tool_calls", []):
                    assert call["function"]["name"] in span, case.name
                if "tool_calls" not in message:
                    assert not unexplained(span, message, template), f"{case.name}: trained besides the answer"
            foreign = case.written("user", "system", "tool")
            assert not [text for text in foreign if text.strip() in "\n".join(spans)], case.name

    def test_trains_the_stop_token(self, template: Handle) -> None:
        """What is trained ends with a token that ends an answer: else the model never learns to end."""
        stop = template.plugin.info.stop or (SPECIAL["eos_token"],)
        for case, rendered in accepted(template):
            for span in texts(rendered):
                assert span.endswith(stop), f"{case.name}: {span!r} ends with none of {stop}"

    def test_prompt_is_a_prefix(self, template: Handle) -> None:
        """What is trained begins where the prompt of that turn ends, and all before it is that prompt."""
        for case, rendered in accepted(template):
            for number, span in zip(case.answers, rendered.trained, strict=True):
                prompt = render(template, case.prompt_of(number))
                assert rendered.text[: span.start] == prompt.text, f"{case.name}, message {number + 1}"

    def test_keeps_text(self, template: Handle) -> None:
        """No character within a message is changed."""
        case = cases()["unicode"]
        text = render(template, case).text
        assert all(message["content"] in text for message in case.messages)

    def test_keeps_edges(self, template: Handle) -> None:
        """White space at the beginning and end of a message is kept."""
        case = cases()["edges"]
        text = render(template, case).text
        assert all(message["content"] in text for message in case.messages)

    def test_weights(self, template: Handle) -> None:
        """A message that weighs nothing is not trained, and another weight is kept; the text stays the same."""
        plain = cases()["turns"]
        weighted = [dict(message) for message in plain.messages]
        first, second, _ = plain.answers
        weighted[first]["weight"], weighted[second]["weight"] = 0.0, 0.5
        before, after = render(template, plain), render(template, replace(plain, messages=weighted))
        assert after.text == before.text
        kept = [(span.start, span.end) for span in before.trained[1:]]
        assert [(span.start, span.end) for span in after.trained] == kept
        assert [span.weight for span in after.trained] == [0.5, 1.0]

    def test_prompt_trains_nothing_new(self, template: Handle) -> None:
        """With add_generation_prompt, no part of the prompt's last turn is trained."""
        for case, rendered in accepted(template):
            if case.add_generation_prompt:
                assert len(rendered.trained) == len(case.answers), case.name
                assert all(span.end < len(rendered.text) for span in rendered.trained), case.name

    def test_exported_template_says_the_same(self, template: Handle) -> None:
        """The chat template that a trained model is saved with renders the same text in plain Jinja."""
        source = template.plugin.chat_template()
        assert "generation %}" not in source.replace("add_generation", "")
        for case, rendered in accepted(template):
            assert render_plain(source, case) == rendered.text, case.name


def texts(rendered: Rendered) -> list[str]:
    """The trained parts of a text."""
    return [rendered.text[span.start : span.end] for span in rendered.trained]


def unexplained(span: str, message: dict[str, Any], template: Handle) -> str:
    """What is left of a trained span without the answer, its thinking, and the words for thinking and stopping."""
    info = template.plugin.info
    for text in (message["content"], message.get("reasoning_content", "")):
        span = span.replace(text.strip(), "", 1)
    for word in (*(info.thinking or ()), *info.stop, SPECIAL["eos_token"]):
        span = span.replace(word, "")
    return span.strip()
