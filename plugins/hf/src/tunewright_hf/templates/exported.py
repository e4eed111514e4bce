"""Recognise an exported chat template as one of the template files, with its options."""

import json
import re
from typing import Any

from tunewright_hf.templates.jinja_template import (
    MEDIA,
    JinjaTemplate,
    media_parts,
    plain_source,
)

__all__ = ["exported_options"]

#: a line that `JinjaTemplate.source` puts before the body
_SET = re.compile(
    r"\{%-(?: if (?P<kept>\w+) is not defined %\}\{%)? set (?P<name>\w+) = (?P<value>.*) %\}"
    r"(?(kept)\{% endif %\})\n"
)


def exported_options(template: type[JinjaTemplate], source: str) -> dict[str, Any] | None:
    """The options, other than defaults, of the template that was exported as this chat template;
    None if it was another one."""
    found: dict[str, Any] = {}
    while match := _SET.match(source):
        try:
            value = json.loads(match["value"])
        except ValueError:  # a line of the body
            break
        found[{"default_system": "system"}.get(match["name"], match["name"])] = value
        source = source[match.end() :]
    source = source.removeprefix(media_parts())
    if plain_source(template.body).rstrip() != source.rstrip():
        return None
    usual: dict[str, Any] = {"system": template.head.default_system, **dict.fromkeys(MEDIA, "")}
    usual |= template.own_options
    return {name: value for name, value in found.items() if value != usual.get(name)}
