"""Template plugins from Jinja files: load a file as a plugin, render conversations to text and
spans."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, create_model

from tunewright import Plugin, PluginOptions, RecipeError, RowError, hookimpl
from tunewright.types import Conversation, Message, Rendered, Span, TemplateRequest
from tunewright_hf.templates.control_tokens import ControlTokenEscaper, Cut
from tunewright_hf.templates.conversation import check_roles, place_of, template_data
from tunewright_hf.templates.info import BoxForm, ReplyForm, TemplateInfo
from tunewright_hf.templates.reply_parser import parse

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = [
    "CONTROL",
    "JinjaTemplate",
    "TemplateOptions",
    "from_file",
    "plain_source",
    "rendered",
]

_HEAD = re.compile(r"\A\{#-\s*tunewright\b(.*?)-#\}\s*", re.DOTALL)
_TAGS = re.compile(r"\{%([-+]?)\s*((?:end)?generation)\s*([-+]?)%\}")
_SHARED = Path(__file__).parent  # folder of macros that templates can include
_PARTS = "parts.jinja"  # turns content in parts into text, before the body
MEDIA = ("image_text", "video_text", "audio_text")

CONTROL = re.compile(r"<\|[^\s|<>]+\|>")  # pattern of a control token


class TemplateOptions(PluginOptions):
    """Options that all templates share."""

    enable_thinking: bool | None = None
    """Value of `enable_thinking` in the template. false: the prompt contains empty thinking, if the
    template supports it. Default: the template's own."""

    train_on: Literal["all", "last"] = Field("all", json_schema_extra={"tier": "basic"})
    """Assistant messages that are trained: all, or only the last one of each conversation."""

    role_order: Literal["strict", "any"] = "strict"
    """Check of the role order. strict: users and assistants must alternate, and tools answer calls.
    any: no check; the template itself may refuse an order."""


class JinjaTemplate(Plugin):
    """Base of the templates that `from_file` makes.

    A file may declare further options in its head, for differences between checkpoints of one
    format. They are variables of its source, and lines of checkpoints.toml set them.
    """

    class Options(TemplateOptions):
        system: str | None = Field(None, json_schema_extra={"tier": "basic"})
        """System prompt of conversations without one. Default: that of the recipe's checkpoint,
        else the template's own."""
        image_text: str | None = None
        """Text that stands for an image. Default: that of the recipe's checkpoint."""
        video_text: str | None = None
        """Text that stands for a video. Default: that of the recipe's checkpoint."""
        audio_text: str | None = None
        """Text that stands for a sound. Default: that of the recipe's checkpoint."""
        boxes: dict[str, str | int] | None = None
        """Form of objects in images, a BoxForm. Default: that of the recipe's checkpoint."""

    body: ClassVar[str]  #: source without the head comment
    own_options: ClassVar[dict[str, bool | str]]  #: options that its head declares → defaults
    head: ClassVar[TemplateInfo]
    file: ClassVar[Path]

    def __init__(self, options: Options, name: str = "") -> None:
        super().__init__(options, name)
        if options.system is not None and self.head.default_system is None:
            raise RecipeError(
                f"template {name!r} has no default system prompt to replace",
                place="template.system",
            )
        self.info = self.head
        if options.system is not None:
            self.info = replace(self.info, default_system=options.system)
        if options.boxes is not None:
            self.info = replace(self.info, boxes=BoxForm.read(options.boxes, "template.boxes"))
        self.media = options.model_dump(include=set(MEDIA), exclude_none=True)
        if self.media:
            self.info = replace(self.info, media=True)
        self._last_tokens: dict[str, str] | None = None

    @cached_property
    def source(self) -> str:
        """The body after assignments of the options' variables, so that an exported template
        behaves the same."""
        given = self.options.model_dump(include=set(self.own_options), exclude_none=True)
        values = self.own_options | given
        if self.info.default_system is not None:
            values = {"default_system": self.info.default_system} | values
        if self.media:
            values = {name: self.media.get(name, "") for name in MEDIA} | values
        sets = [f"{{%- set {name} = {_literal(value)} %}}\n" for name, value in values.items()]
        if (thinking := self.options.enable_thinking) is not None:
            value = str(thinking).lower()
            sets.append(
                f"{{%- if enable_thinking is not defined %}}{{% set enable_thinking = "
                f"{value} %}}{{% endif %}}\n"
            )
        return "".join(sets) + (media_parts() if self.media else "") + self.body

    def parse_reply(self, text: str, tools: list[dict[str, Any]] | None = None) -> Message:
        """Parse a generated text: thinking, text and tool calls. See
        `tunewright_hf.templates.reply_parser.parse`."""
        return parse(text, self.info, tools)

    def chat_template(self) -> str:
        """Template for the trained model's tokenizer: plain Jinja that renders the same text."""
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
        """Named special tokens and the escaper; cached, because they are the same for all rows of a
        run."""
        if special_tokens is not self._last_tokens and special_tokens != self._last_tokens:
            named = {name: token for name, token in special_tokens.items() if name.isidentifier()}
            control = {*self.info.control, *self.info.stop, *special_tokens.values()}
            self._last_prepared = named, ControlTokenEscaper(control, self.info.words)
            self._last_tokens = special_tokens
        return self._last_prepared


@cache
def media_parts() -> str:
    """Source before the body of a template for media."""
    return (_SHARED / _PARTS).read_text(encoding="utf-8")


def from_file(path: Path) -> type[JinjaTemplate]:
    """Make the plugin class of a template file.

    The file may begin with a comment that holds TOML, the fields of TemplateInfo, `[reply]`, those
    of ReplyForm, `[options.NAME]` with `default` (text, true or false) and `description`, and
    `[deviations]`, the conformance tests that it does not pass: `{#- tunewright` … `-#}`. Raises
    RecipeError where the head cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    found = _HEAD.match(text)
    try:
        declared = tomllib.loads(found[1]) if found else {}
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the head comment is not TOML: {error}", place=str(path)) from error
    deviations = declared.pop("deviations", {})
    options = _options(declared.pop("options", {}), str(path))
    reply = ReplyForm.read(declared.pop("reply", {}), str(path))
    known = {each.name for each in fields(TemplateInfo)} - {"reply", "boxes"}
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
        "own_options": {name: option["default"] for name, option in options.items()},
        "deviations": deviations,
        "__doc__": head.notes,
    }
    if options:
        fields_: dict[str, Any] = {
            name: (type(option["default"]) | None, Field(None, description=_described(option)))
            for name, option in options.items()
        }
        namespace["Options"] = create_model("Options", __base__=JinjaTemplate.Options, **fields_)
    return type("JinjaTemplate", (JinjaTemplate,), namespace)


def _options(declared: dict[str, Any], place: str) -> dict[str, Any]:
    """Checked options that a head declares under `[options]`. If the recipe's value of an option is
    None, the checkpoint's applies, else the default."""
    for name, option in declared.items():
        default = option.get("default") if isinstance(option, dict) else None
        if not isinstance(default, bool | str) or option.keys() != {"default", "description"}:
            problem = f"options.{name}: expected `default`, text, true or false, and `description`"
            raise RecipeError(problem, place=place)
    return declared


def _described(option: dict[str, Any]) -> str:
    default = _literal(option["default"])
    return f"{option['description']} Default: that of the recipe's checkpoint, else {default}."


def _included(template: Path, name: str) -> Path:
    """File that a template includes by this name: beside it, or else in this package."""
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
    """Source without generation tags. A comment in their place preserves white space."""
    return _TAGS.sub(r"{#\1 \2 \3#}", source)


def template_error(error: Exception, name: str, place: str) -> RecipeError | RowError:
    from tunewright_hf.templates.sandbox import describe

    blamed, problem = describe(error)
    if blamed == "template":
        return RecipeError(problem, place=f"template {name}")
    return RowError(problem, place=place)


def rendered(conversation: Conversation, found: Cut, train_on: Literal["all", "last"]) -> Rendered:
    """Assign the loss weights of their messages to the trained spans; spans with weight 0 are
    removed."""
    spans = list(_weighted(conversation, found, train_on))
    return Rendered(found.text, spans, found.untrusted, found.answers)


def _weighted(
    conversation: Conversation, found: Cut, train_on: Literal["all", "last"]
) -> Iterator[Span]:
    assistants = [
        place for place, message in enumerate(conversation.messages) if message.role == "assistant"
    ]
    for number, (start, end, place) in enumerate(found.trained):
        if place is None:  # the template uses another variable for messages: count
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


def _literal(value: str | bool) -> str:
    """A Jinja constant, true or false or a string, whose escapes are those of Python and, for the
    most part, of JSON."""
    return json.dumps(value, ensure_ascii=False)
