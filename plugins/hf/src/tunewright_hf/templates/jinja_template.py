"""Templates that are Jinja files: from the file to a plugin, from a conversation to text and
spans."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tunewright import Plugin, PluginOptions, RecipeError, RowError, hookimpl
from tunewright.types import Conversation, Message, Rendered, Span, TemplateRequest
from tunewright_hf.templates.control_tokens import ControlTokenEscaper, Cut
from tunewright_hf.templates.conversation import check_roles, place_of, template_data
from tunewright_hf.templates.info import ReplyForm, TemplateInfo
from tunewright_hf.templates.reply_parser import parse

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["CONTROL", "JinjaTemplate", "TemplateOptions", "from_file", "plain_source", "rendered"]

_HEAD = re.compile(r"\A\{#-\s*tunewright\b(.*?)-#\}\s*", re.DOTALL)
_TAGS = re.compile(r"\{%([-+]?)\s*((?:end)?generation)\s*([-+]?)%\}")
_SHARED = Path(__file__).parent  # of macros that many templates include
CONTROL = re.compile(r"<\|[^\s|<>]+\|>")  # what a control token looks like


class TemplateOptions(PluginOptions):
    """What all templates share."""

    enable_thinking: bool | None = None
    """What `enable_thinking` is in the template: off writes the empty thinking into the prompt,
    where the template can. Not given: the template's own default."""

    train_on: Literal["all", "last"] = "all"
    """The messages of the assistant that are trained: all of them, or the last one of each
    conversation."""

    role_order: Literal["strict", "any"] = "strict"
    """strict: users and assistants take turns and tools answer calls, or the row is an error. any:
    only the template itself may refuse an order."""


class JinjaTemplate(Plugin):
    """Base of the templates that `from_file` makes."""

    class Options(TemplateOptions):
        system: str | None = None
        """The system prompt of conversations that have none, in place of the template's own."""

    body: ClassVar[str]  #: source without the head comment
    head: ClassVar[TemplateInfo]
    file: ClassVar[Path]

    def __init__(self, options: Options, name: str = "") -> None:
        super().__init__(options, name)
        if options.system is not None and self.head.default_system is None:
            raise RecipeError(
                f"template {name!r} has no default system prompt to replace",
                place="template.system",
            )
        self.info = (
            self.head
            if options.system is None
            else replace(self.head, default_system=options.system)
        )
        self._last_tokens: dict[str, str] | None = None

    @cached_property
    def source(self) -> str:
        """The body after the options' variables, so that what is exported says the same."""
        sets = []
        if self.info.default_system is not None:
            sets.append(f"{{%- set default_system = {_literal(self.info.default_system)} %}}\n")
        if (thinking := self.options.enable_thinking) is not None:
            value = str(thinking).lower()
            sets.append(
                f"{{%- if enable_thinking is not defined %}}{{% set enable_thinking = "
                f"{value} %}}{{% endif %}}\n"
            )
        return "".join(sets) + self.body

    def parse_reply(self, text: str, tools: list[dict[str, Any]] | None = None) -> Message:
        """The message that a generated text says: thinking, text and calls. See
        `tunewright_hf.templates.reply_parser.parse`."""
        return parse(text, self.info, tools)

    def chat_template(self) -> str:
        """For the trained model's tokenizer: plain Jinja, which renders the same text."""
        return plain_source(self.source)

    @hookimpl
    def format_template(self, request: TemplateRequest) -> Rendered:
        from tunewright_hf.templates.sandbox import pieces  # recipes are checked without jinja2

        conversation = request.conversation
        if self.options.role_order == "strict":
            check_roles(conversation, request.add_generation_prompt)
        tokens, guard = self._prepared(request.special_tokens)
        fixed = tokens | {"add_generation_prompt": request.add_generation_prompt}
        place, template = place_of(conversation), self._template

        def render(data: dict[str, Any]) -> str:
            try:
                return "".join(pieces(template, data | fixed))
            except Exception as error:
                raise template_error(error, self.name, place) from error

        data = template_data(conversation, self.info.media)
        found = guard.render(data, render, place)
        return rendered(conversation, found, self.options.train_on)

    @cached_property
    def _template(self) -> "Template":
        from tunewright_hf.templates.sandbox import compile_template

        try:
            return compile_template(self.source)
        except Exception as error:
            raise template_error(error, self.name, str(self.file)) from error

    def _prepared(
        self, special_tokens: dict[str, str]
    ) -> tuple[dict[str, str], ControlTokenEscaper]:
        """The special tokens that have names, and the guard; kept, because they are the same for
        all rows of a run."""
        if special_tokens is not self._last_tokens and special_tokens != self._last_tokens:
            named = {name: token for name, token in special_tokens.items() if name.isidentifier()}
            control = {*self.info.control, *self.info.stop, *special_tokens.values()}
            self._last_prepared = named, ControlTokenEscaper(control, self.info.words)
            self._last_tokens = special_tokens
        return self._last_prepared


def from_file(path: Path) -> type[JinjaTemplate]:
    """Make the plugin class of a template file.

    The file may begin with a comment that holds TOML, the fields of TemplateInfo, `[reply]`, those
    of ReplyForm, and `[deviations]`, the conformance tests that it does not pass: `{#- tunewright`
    … `-#}`. Raises RecipeError where the head cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    found = _HEAD.match(text)
    try:
        declared = tomllib.loads(found[1]) if found else {}
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the head comment is not TOML: {error}", place=str(path)) from error
    deviations = declared.pop("deviations", {})
    reply = ReplyForm.read(declared.pop("reply", {}), str(path))
    known = {each.name for each in fields(TemplateInfo)} - {"reply"}
    if unknown := declared.keys() - known:
        problem = f"unknown in the head comment: {', '.join(sorted(unknown))}"
        raise RecipeError(problem, place=str(path), hint=f"there is: {', '.join(sorted(known))}")
    given: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in declared.items()
    }
    head = TemplateInfo(**given, reply=reply)
    macros = "".join(_included(path, name).read_text(encoding="utf-8") for name in head.include)
    body = macros + text[found.end() if found else 0 :]
    if "control" not in declared:
        head = replace(head, control=tuple(dict.fromkeys(CONTROL.findall(body))))
    namespace = {
        "body": body,
        "head": head,
        "file": path,
        "deviations": deviations,
        "__doc__": head.notes,
    }
    return type("JinjaTemplate", (JinjaTemplate,), namespace)


def _included(template: Path, name: str) -> Path:
    """The file that a template includes by this name: beside it, else shared by this package."""
    for folder in (template.parent, _SHARED):
        if (found := folder / name).is_file():
            return found
    beside = {path.name for path in template.parent.glob("*.jinja")} - {template.name}
    shared = {path.name for path in _SHARED.glob("*.jinja")}
    raise RecipeError(
        f"there is no file {name!r} to include",
        place=str(template),
        hint=f"there is: {', '.join(sorted(beside | shared))}",
    )


def plain_source(source: str) -> str:
    """Source without generation tags. A comment in their place keeps the white space as it is."""
    return _TAGS.sub(r"{#\1 \2 \3#}", source)


def template_error(error: Exception, name: str, place: str) -> RecipeError | RowError:
    from tunewright_hf.templates.sandbox import describe

    blamed, problem = describe(error)
    if blamed == "template":
        return RecipeError(problem, place=f"template {name}")
    return RowError(problem, place=place)


def rendered(conversation: Conversation, found: Cut, train_on: Literal["all", "last"]) -> Rendered:
    """Give the spans that were found the loss weights of their messages; what weighs nothing is
    left out."""
    spans = list(_weighted(conversation, found, train_on))
    return Rendered(found.text, spans, found.untrusted, found.answers)


def _weighted(
    conversation: Conversation, found: Cut, train_on: Literal["all", "last"]
) -> Iterator[Span]:
    assistants = [
        place for place, message in enumerate(conversation.messages) if message.role == "assistant"
    ]
    for number, (start, end, place) in enumerate(found.trained):
        if place is None:  # the template calls its messages by another name: count
            if len(found.trained) != len(assistants):
                raise RecipeError(
                    (
                        f"the template has {len(found.trained)} spans for "
                        f"{len(assistants)} messages of the assistant"
                    ),
                    place="template",
                    hint="call the loop's variable `message`",
                )
            place = assistants[number]
        weight = conversation.messages[place].loss_weight
        if weight > 0 and (train_on == "all" or place == assistants[-1]):
            yield Span(start, end, weight)


def _literal(text: str) -> str:
    """A Jinja string constant, whose escapes are those of Python and, for the most part, of
    JSON."""
    return json.dumps(text, ensure_ascii=False)
