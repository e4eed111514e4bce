"""The sandboxed Jinja environment of chat templates, and the marks that its text carries.

Imports jinja2 and `signs`, because the worker that renders foreign templates starts from here. What
a template can say is what transformers' renderer lets it say (`apply_chat_template`), so that a
template that renders here renders there.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tunewright_hf.templates.markers import NUMBERED, TRAINED, TRAINED_END, TemplateMessage


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: puts marks round what the model is trained to
    produce.

    The body is no scope of its own: a template without the tags, as it is exported, must behave the
    same.
    """

    tags: set[str] = {"generation"}  # noqa: RUF012 - as its base declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        message = nodes.Name("message", "load", lineno=line)
        begin = nodes.Filter(
            message, "_begin", [], [], None, None, lineno=line
        )  # not a call: those are slow
        end = nodes.TemplateData(TRAINED_END)
        return [nodes.Output([begin], lineno=line), *body, nodes.Output([end], lineno=line)]


def _begin(message: Any) -> str:
    return f"{TRAINED}{message._place if type(message) is TemplateMessage else ''}{NUMBERED}"


class _Namespace(Namespace):
    """`namespace()` without underscored names: they would let a template store what the sandbox
    hides."""

    def __init__(self, **attributes: Any) -> None:
        for name in attributes:
            _refuse_hidden(name)
        super().__init__(**attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_hidden(name)
        super().__setitem__(name, value)


def _refuse_hidden(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no chat template wants."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters |= {"tojson": _tojson, "_begin": _begin}
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": _Namespace,
    }
    return environment


ENVIRONMENT = _environment()
_GLOBALS = dict(ENVIRONMENT.globals)


def compile_template(source: str) -> Template:
    """Raises TemplateSyntaxError, and SecurityError where other files are asked for.

    Folds constants, which may take for ever: foreign sources are compiled in a worker.
    """
    for found in ENVIRONMENT.parse(source).find_all(
        (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    ):
        raise SecurityError(f"line {found.lineno}: a chat template may not load other templates")
    return ENVIRONMENT.from_string(source)


def pieces(template: Template, variables: dict[str, Any]) -> Iterator[str]:
    """The text, piece by piece. `Template.render` spends more time on copying its globals than on a
    short template."""
    context = template.new_context(_GLOBALS | variables, shared=True)
    return template.root_render_func(context)


def describe(error: Exception) -> tuple[str, str]:
    """Who is to blame, `template` or `row`, and what happened in one line."""
    if isinstance(error, SecurityError):
        return "template", f"the template does what the sandbox forbids: {error}"
    if isinstance(error, TemplateSyntaxError):
        return "template", f"the template cannot be read, line {error.lineno}: {error.message}"
    if type(error) is TemplateError:  # raise_exception in the template
        return "row", f"the template refuses this conversation: {error}"
    if isinstance(error, MemoryError):
        return "template", "the template asks for more memory than it may have"
    return "row", f"the template fails on this conversation: {type(error).__name__}: {error}"
