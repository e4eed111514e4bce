"""Sandboxed Jinja environment for chat templates, with marks around trained text.

Imports only jinja2 and `markers`, because the worker that renders checkpoints' templates starts
from here. The environment matches that of transformers (`apply_chat_template`), so that a template
that renders here also renders there.
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
    """`{% generation %}…{% endgeneration %}`: encloses what the model is trained to produce in
    marks.

    The body is not a scope of its own: the exported template, without the tags, must behave the
    same.
    """

    tags: set[str] = {"generation"}  # noqa: RUF012 - as its base declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        message = nodes.Name("message", "load", lineno=line)
        # not a call, which would be slow
        begin = nodes.Filter(message, "_begin", [], [], None, None, lineno=line)
        end = nodes.TemplateData(TRAINED_END)
        return [nodes.Output([begin], lineno=line), *body, nodes.Output([end], lineno=line)]


def _begin(message: Any) -> str:
    return f"{TRAINED}{message._place if type(message) is TemplateMessage else ''}{NUMBERED}"


class _Namespace(Namespace):
    """`namespace()` without underscored names, which would let a template store what the sandbox
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
    """JSON filter without HTML escaping, unlike Jinja's own."""
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
    """Compile a template. Raises TemplateSyntaxError, and SecurityError if it uses other files.

    Constant folding may take forever, so checkpoints' templates are compiled in a worker.
    """
    for found in ENVIRONMENT.parse(source).find_all(
        (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    ):
        raise SecurityError(f"line {found.lineno}: a chat template may not load other templates")
    return ENVIRONMENT.from_string(source)


def pieces(template: Template, variables: dict[str, Any]) -> Iterator[str]:
    """Yield the text in pieces. `Template.render` spends more time on copying its globals than on a
    short template."""
    context = template.new_context(_GLOBALS | variables, shared=True)
    return template.root_render_func(context)


def describe(error: Exception) -> tuple[str, str]:
    """Return who is to blame, `template` or `row`, and the problem in one line."""
    if isinstance(error, SecurityError):
        return "template", f"the template does what the sandbox forbids: {error}"
    if isinstance(error, TemplateSyntaxError):
        return "template", f"the template cannot be read, line {error.lineno}: {error.message}"
    if type(error) is TemplateError:  # raise_exception in the template
        return "row", f"the template refuses this conversation: {error}"
    if isinstance(error, MemoryError):
        return "template", "the template asks for more memory than it may have"
    return "row", f"the template fails on this conversation: {type(error).__name__}: {error}"
