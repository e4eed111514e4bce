"""Conversations for tests of templates, and two ways to render them: the plugin's and plain
Jinja."""

import json
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

from tunewright.errors import RowError
from tunewright.registry import PluginCaller
from tunewright.types import Conversation, Message, Rendered, TemplateRequest, ToolCall

# of the tokenizer that goldens are rendered with
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
FOREIGN = ("<|begin|>", "<|end|>")  # of goldens/foreign.jinja
TODAY = date(2024, 7, 26)  # for official templates that write the date
BASIC = ("one_turn", "system", "turns", "prompt", "unicode")  # no template may refuse these


@dataclass(frozen=True)
class Case:
    """A conversation. messages and tools: as chat templates take them, in OpenAI's format with
    arguments as objects."""

    name: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = False

    def conversation(self) -> Conversation:
        return Conversation(
            [_message(fields) for fields in self.messages], self.tools, dict(self.variables)
        )

    def prompt_of(self, answer: int) -> "Case":
        """The prompt for message number `answer`."""
        return replace(self, messages=self.messages[:answer], add_generation_prompt=True)

    def written(self, *roles: str) -> list[str]:
        """The texts of messages with these roles."""
        return [m["content"] for m in self.messages if m["role"] in roles and m["content"]]

    @property
    def answers(self) -> list[int]:
        """Indices of the assistant's messages."""
        return [
            number for number, message in enumerate(self.messages) if message["role"] == "assistant"
        ]


@cache
def cases() -> dict[str, Case]:
    tools, found = json.loads(_goldens("tools.json")), json.loads(_goldens("cases.json"))
    for name, fields in found.items():
        fields["tools"] = [tools[tool] for tool in fields.get("tools", [])]
        found[name] = Case(name, **fields)
    return dict(found)


def _goldens(name: str) -> str:
    return (resources.files("tunewright_conformance") / "goldens" / name).read_text(
        encoding="utf-8"
    )


def _message(fields: dict[str, Any]) -> Message:
    calls = [ToolCall(**call["function"]) for call in fields.get("tool_calls", [])]
    reasoning, name = fields.get("reasoning_content"), fields.get("name")
    return Message(
        fields["role"], fields["content"], reasoning, calls, name=name, weight=fields.get("weight")
    )


class Renderer:
    """A template plugin, with what it needs to render the cases. style: of its tokenizer; None:
    without one.

    A template whose chat_template() is None renders the tokenizer's own: the tokenizer then has
    goldens/foreign.jinja.
    """

    def __init__(self, template: PluginCaller, style: str = "") -> None:
        self.plugin: Any = template.plugin
        self._template = template
        self._source = self.plugin.chat_template()
        self._foreign = self._source is None
        self.tokenizer: Any = None
        if style or self._foreign:
            self.tokenizer = _tokenizer(self.plugin, style or "byte_level")
        self._special = self.tokenizer.special_tokens_map if self.tokenizer else SPECIAL
        if self._foreign:
            self._source = self.tokenizer.chat_template = _goldens("foreign.jinja")

    @property
    def stop(self) -> tuple[str, ...]:
        """Tokens that may end an answer."""
        stop: tuple[str, ...] = self.plugin.info.stop or (
            FOREIGN[-1] if self._foreign else self._special["eos_token"],
        )
        return stop

    @property
    def control(self) -> set[str]:
        """All tokens that data must not be able to write."""
        return {*self.plugin.info.control, *self.stop, *self._special.values()}

    def render(self, case: Case) -> Rendered:
        """Render a case. Raises RowError if the template refuses the conversation."""
        tokenizer = self.tokenizer if self._foreign else None
        request = TemplateRequest(
            case.conversation(), case.add_generation_prompt, self._special, tokenizer
        )
        rendered: Rendered = self._template.call("format_template", run=None, request=request)
        return rendered

    def accepted(self) -> list[tuple[Case, Rendered]]:
        """The cases that the template accepts. It must accept the basic ones."""
        found = []
        for case in cases().values():
            try:
                found.append((case, self.render(case)))
            except RowError:
                assert case.name not in BASIC, f"refuses {case.name}, which no template may"
        return found

    def answered(self) -> list[tuple[Case, Rendered]]:
        """The trained cases: without prompts that wait for an answer."""
        return [
            (case, rendered) for case, rendered in self.accepted() if not case.add_generation_prompt
        ]

    def plain(self, case: Case, source: str | None = None) -> str:
        """The case in plain Jinja, with the exported template or another one. Raises jinja2's
        errors."""
        return render_plain(source or self._source, case, self._special)


def _tokenizer(plugin: Any, style: Any) -> Any:
    """A small tokenizer with every token of the template."""
    from tunewright_hf.models import tiny

    info = plugin.info
    named = ["<s>", "</s>", "<unk>", "<pad>"]
    special = (
        *named,
        *(token for token in (*info.control, *info.stop, *FOREIGN) if token not in named),
    )
    twin = tiny.TinyModelSpec(
        "suite",
        "llama",
        "",
        style,
        eos="</s>",
        bos="<s>",
        unk="<unk>",
        pad="<pad>",
        pattern=r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        special=tuple(dict.fromkeys(special)),
        words=tuple(dict.fromkeys(info.words)),
    )
    return tiny.tokenizer(twin)


def render_plain(source: str, case: Case, special: dict[str, str]) -> str:
    """The case as transformers renders a chat template. Raises jinja2's errors."""
    return _compiled(source).render(
        messages=case.messages,
        tools=case.tools or None,
        add_generation_prompt=case.add_generation_prompt,
        **special,
        **case.variables,
    )


@cache
def _compiled(source: str) -> Any:
    """Sandboxed Jinja with the functions and filters that transformers provides to chat
    templates."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": refuse, "strftime_now": TODAY.strftime}
    return environment.from_string(source)
