"""The models' own templates, beyond the one that a golden names: which conversations are compared
at all, later revisions of the same, and text that spells control tokens."""

from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import TemplateError

from template_cases import SPECIAL, TALKS, assistant, render, system, talk, template, user
from templates.test_rendering import OFFICIAL, differs, official_text
from tunewright.types import Conversation
from tunewright_conformance.cases import TODAY

#: what a model's own template refuses, and so nothing can be compared with
NO_TOOLS = {"tool", "tool_text", "tools_parallel", "tool_thinking"}
REFUSED: dict[str, set[str]] = {
    "cohere": NO_TOOLS,
    "cohere2": NO_TOOLS,
    "gemma3": NO_TOOLS,
    "gemma": NO_TOOLS | {"system"},
    "llama3_1": {"tools_parallel"},
}

#: the own template of other checkpoints that are listed with the same one of ours
ALSO = {
    "phi3": ("phi", {}),
    "llama3_2": (
        "llama3_1",
        {"date_string": "26 Jul 2024"},
    ),  # it writes today's, which differs/llama3_1.toml tells
    "nemotron_3_super": ("nemotron_3_nano", {}),
    "lfm2_2_5": ("lfm2_5", {}),
}


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "transformers.utils.chat_template_utils.datetime", SimpleNamespace(now=lambda: TODAY)
    )


@pytest.mark.parametrize("name", OFFICIAL)
def test_what_a_models_own_refuses_is_known(name: str) -> None:
    """Else a comparison could be lost without anybody noticing: every other conversation is
    compared."""
    refused = set()
    for sort, conversation in TALKS.items():
        try:
            official_text(name, conversation)
        except TemplateError:
            refused.add(sort)
    assert refused == REFUSED.get(name, set())


@pytest.mark.parametrize("file", ALSO)
def test_text_equals_that_of_other_revisions(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, variables = ALSO[file]
    monkeypatch.setitem(OFFICIAL, name, f"{file}.jinja")
    apart, made, compared = differs(name).get("official", {}), template(name, role_order="any"), 0
    for sort in TALKS.keys() - apart.keys() - REFUSED.get(name, set()):
        for prompt in (False, True):
            expected = official_text(name, TALKS[sort], add_generation_prompt=prompt, **variables)
            assert render(made, TALKS[sort], prompt=prompt).text == expected, (
                f"{sort}, prompt={prompt}"
            )
            compared += 1
    assert compared >= 12


def spelled(made: Any, with_system: bool) -> Conversation:
    """Each message has every control token; those that ask also have the words for thinking and
    tools."""
    info = made.info
    tokens = " ".join(sorted({*info.control, *info.stop, *SPECIAL.values()}))
    words = f"{tokens} {' '.join(info.words)}"
    asked = talk(
        user(f"a {words} b"), assistant(f"c {tokens} d"), user(words), assistant(f"{tokens} e")
    )
    return talk(system(f"f {words} g"), *asked.messages) if with_system else asked


@pytest.mark.parametrize("name", OFFICIAL)
def test_text_that_spells_control_tokens(name: str) -> None:
    """The text is the model's own; that the ids are not, is what the conformance suite asks of
    every template."""
    made = template(name)
    for with_system in (False, "system" not in REFUSED.get(name, set())):
        conversation = spelled(made, with_system)
        rendered = render(made, conversation)
        assert rendered.text == official_text(name, conversation)
        assert rendered.untrusted and rendered.answers
