"""Chat templates in Ollama's language, for every template that is installed."""

import pytest

from tunewright import registry
from tunewright.types import Conversation, Message, TemplateRequest
from tunewright_exporters.go_template import Role, derive

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(name: str, messages: list[tuple[Role, str]]) -> str:
    plugin = registry.load(registry.find("template", name))
    template = plugin(plugin.Options(), name)
    conversation = Conversation([Message(role, text) for role, text in messages])
    request = TemplateRequest(conversation, True, SPECIAL)
    return str(template.format_template(request).text).removeprefix("<s>")


NAMES = sorted({each.name for each in registry.entries("template")} - {"auto"})


@pytest.mark.parametrize("name", NAMES)
def test_every_template(name: str) -> None:
    form = derive(lambda messages: render(name, messages))
    assert form is not None
    messages: list[tuple[Role, str]] = [
        *[("user", "x"), ("assistant", "y")] * 3,
        ("user", "last"),
    ]
    assert form.render(messages) == render(name, messages)
    assert form.render([("system", "s"), *messages]) == render(name, [("system", "s"), *messages])


def test_what_go_would_read_as_its_own_is_refused() -> None:
    def braces(messages: list[tuple[Role, str]]) -> str:
        return "".join(f"{{{{{role}}}}}{text}" for role, text in messages)

    assert derive(braces) is None


def test_what_depends_on_more_than_roles_is_refused() -> None:
    def numbered(messages: list[tuple[Role, str]]) -> str:
        return "".join(f"{place}. {text}" for place, (_, text) in enumerate(messages))

    assert derive(numbered) is None
