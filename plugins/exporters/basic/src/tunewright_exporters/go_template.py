"""Chat templates in the template language of Go, as Ollama's Modelfiles have them.

A template is tried on conversations of marked texts. If what it writes is text that depends on a
message's role alone, before and after each message's own, Go can say it. That is shown on other
conversations before it is believed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
Render = Callable[[list[tuple[Role, str]]], str]


@dataclass(frozen=True, slots=True)
class Form:
    """Text round the messages of a conversation that ends with the generation prompt."""

    without_system: str  # at the beginning of a conversation without a system message
    before_system: str
    after_system: str
    before_user: str
    before_assistant: str  # after a user's message
    after_assistant: str
    generation_prompt: str  # after the last message, a user's

    def render(self, messages: list[tuple[Role, str]]) -> str:
        """The text that the Go template writes."""
        parts = [] if messages[0][0] == "system" else [self.without_system]
        for role, text in messages:
            if role == "system":
                parts += [self.before_system, text, self.after_system]
            elif role == "user":
                parts += [self.before_user, text]
            else:
                parts += [self.before_assistant, text, self.after_assistant]
        return "".join([*parts, self.generation_prompt])

    def as_go(self) -> str:
        """The template, over .Messages."""
        branches = (
            f'{{{{ if eq .Role "system" }}}}{self.before_system}{{{{ .Content }}}}'
            f'{self.after_system}{{{{ else if eq .Role "user" }}}}{self.before_user}'
            f"{{{{ .Content }}}}{{{{ else }}}}{self.before_assistant}{{{{ .Content }}}}"
            f"{self.after_assistant}{{{{ end }}}}"
        )
        first = f"{{{{ if not .System }}}}{self.without_system}{{{{ end }}}}"
        if not self.without_system:
            first = ""
        return f"{first}{{{{ range .Messages }}}}{branches}{{{{ end }}}}{self.generation_prompt}"


def derive(render: Render) -> Form | None:
    """The form of a template; None if it has no such form, or Go cannot hold its text.

    render: the template's text of (role, text) messages, with the generation prompt.
    """
    two = _split(render([("user", "U1"), ("assistant", "A1"), ("user", "U2")]), "U1", "A1", "U2")
    with_system = _split(render([("system", "S1"), ("user", "U1")]), "S1", "U1")
    if two is None or with_system is None:
        return None
    first, answer, between, last = two
    before_system, system_to_user, _ = with_system
    before_user = _common_end(first, between, system_to_user)
    cut = len(before_user)
    form = Form(
        without_system=first[: len(first) - cut],
        before_system=before_system,
        after_system=system_to_user[: len(system_to_user) - cut],
        before_user=before_user,
        before_assistant=answer,
        after_assistant=between[: len(between) - cut],
        generation_prompt=last,
    )
    texts = (getattr(form, name) for name in Form.__slots__)
    if any('"""' in text or "{{" in text for text in texts):
        return None
    return form if all(form.render(each) == render(each) for each in _TRIED) else None


_TRIED: list[list[tuple[Role, str]]] = [
    [("user", "How are you?")],
    [("system", "Be brief."), ("user", "One, two\nthree.")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
    [("system", "S"), ("user", "a"), ("assistant", "b: c"), ("user", "d")],
]


def _common_end(*texts: str) -> str:
    length = 0
    while all(len(text) > length for text in texts):
        if len({text[-length - 1] for text in texts}) > 1:
            break
        length += 1
    return texts[0][len(texts[0]) - length :]


def _split(text: str, *marks: str) -> list[str] | None:
    """The parts of a text round marks that stand in it once, in this order."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            return None
        parts.append(before)
    return [*parts, text]
