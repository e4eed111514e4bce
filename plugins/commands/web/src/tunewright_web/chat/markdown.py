"""Markdown of a model as HTML: what it wrote as HTML is text, and nothing is loaded."""

import functools

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from tunewright.terminal import printable

__all__ = ["rendered"]

_LONGEST = 100_000  # characters; more are shown as they are


def rendered(text: str) -> Markup:
    """HTML of a reply. Control characters, such as those that colour a terminal, are shown."""
    text = printable(text.replace("\r\n", "\n"))
    if len(text) > _LONGEST:
        return Markup('<pre class="plain">{}</pre>').format(escape(text))
    return Markup(_parser().render(text))  # noqa: S704 - html is off: the parser escapes it


@functools.cache
def _parser() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True})
    # an image would be fetched from wherever the model says
    made.enable(["table", "strikethrough"]).disable("image")
    made.add_render_rule("link_open", _link)
    return made


def _link(self, tokens, index, options, env):  # type: ignore[no-untyped-def]
    tokens[index].attrSet("rel", "noreferrer noopener nofollow")
    tokens[index].attrSet("target", "_blank")
    return self.renderToken(tokens, index, options, env)
