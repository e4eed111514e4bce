"""Conversations that every template is tried on, and the two ways to render them: the plugin's and plain Jinja."""

import json
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from tunewright.errors import RowError
from tunewright.registry import Handle
from tunewright.types import Conversation, Message, Rendered, TemplateRequest, ToolCall

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}  # of the tokenizer that goldens are made with
BASIC = ("one_turn", "system", "turns", "prompt", "unicode")  # no template may refuse these


@dataclass(frozen=True)
class Case:
    """messages and tools: as chat templates take them, OpenAI's form with arguments as objects."""

    name: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = False

    def conversation(self) -> Conversation:
        return Conversation([_message(fields) for fields in self.messages], self.tools, dict(self.variables))

    def prompt_of(self, answer: int) -> "Case":
        """What the assistant is asked when it writes message number `answer`."""
        return replace(self, messages=self.messages[:answer], add_generation_prompt=True)

    def written(self, *roles: str) -> list[str]:
        """The texts of these roles' messages."""
        return [m["content"] for m in self.messages if m["role"] in roles and m["content"]]

    @property
    def answers(self) -> list[int]:
        """The numbers of the assistant's messages."""
        return [number for number, message in enumerate(self.messages) if message["role"] == "assistant"]


@cache
def cases() -> dict[str, Case]:
    folder = resources.files("tunewright_conformance") / "goldens"
    tools = json.loads((folder / "tools.json").read_text(encoding="utf-8"))
    found = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    for name, fields in found.items():
        fields["tools"] = [tools[tool] for tool in fields.get("tools", [])]
        found[name] = Case(name, **fields)
    return dict(found)


def _message(fields: dict[str, Any]) -> Message:
    calls = [ToolCall(**call["function"]) for call in fields.get("tool_calls", [])]
    reasoning, name = fields.get("reasoning_content"), fields.get("name")
    return Message(fields["role"], fields["content"], reasoning, calls, name=name, weight=fields.get("weight"))


def render(template: Handle, case: Case, tokenizer: Any = None, special: dict[str, str] | None = None) -> Rendered:
    """The case as the plugin renders it. Raises RowError where it refuses the conversation."""
    request = TemplateRequest(case.conversation(), case.add_generation_prompt, special or SPECIAL, tokenizer)
    rendered: Rendered = template.call("format_template", run=None, request=request)
    return rendered


def accepted(template: Handle, tokenizer: Any = None) -> list[tuple[Case, Rendered]]:
    """The cases that the template takes. The basic ones it must take."""
    found = []
    for case in cases().values():
        try:
            found.append((case, render(template, case, tokenizer)))
        except RowError:
            assert case.name not in BASIC, f"refuses {case.name}, which no template may"
    return found


def render_plain(source: str, case: Case) -> str:
    """The case as the ecosystem renders a chat template: sandboxed Jinja with transformers' functions and filters.

    Raises jinja2's errors.
    """
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    return environment.from_string(source).render(
        messages=case.messages,
        tools=case.tools or None,
        add_generation_prompt=case.add_generation_prompt,
        **SPECIAL,
        **case.variables,
    )
