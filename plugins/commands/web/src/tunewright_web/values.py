"""Typed texts to values of a recipe and back, without loss.

A text is what stands in a form's field. An empty one is no value. Everything that a field cannot
read is a problem at the field, never another value.
"""

import csv
import io
import json
import re
from typing import Any

import yaml

from tunewright import yamlio
from tunewright.errors import RecipeError
from tunewright_web.form import Field

_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class Unreadable(ValueError):
    """A text that its field cannot read. hint: the remedy."""

    def __init__(self, problem: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(problem)


def parse(field: Field, text: str) -> Any:
    """The value of a text that is not empty. Raises Unreadable."""
    if field.nullable and text.strip() == "null":
        return None
    match field.widget:
        case "integer" | "number":
            return _number(text.strip(), field.widget)
        case "switch":
            return {"true": True, "false": False}.get(text.strip(), text)
        case "choice":
            return next((value for value in field.choices if str(value) == text), text)
        case "lines":
            return _lines(field, text)
        case "yaml":
            return parse_yaml(text)
    return _unquoted(text)


def unparse(field: Field, value: Any) -> str:
    """The text that `parse` reads as the value; a value of another type, as YAML."""
    if value is None:
        return "null"
    match field.widget:
        case "integer" | "number" if _is_number(value):
            return repr(value)
        case "switch" if isinstance(value, bool):
            return "true" if value else "false"
        case "choice" if any(value == each for each in field.choices):
            return str(value)
        case "lines" if isinstance(value, str) and value in field.choices:
            return value
        case "lines" if isinstance(value, list) and value:
            if all(isinstance(each, str) and re.fullmatch(r"\S|\S.*\S", each) for each in value):
                return ", ".join(map(_item, value))
        case "text" | "path" | "secret" if isinstance(value, str):
            quote = value in ("", "null") or value != value.strip() or value[0] == '"'
            return json.dumps(value, ensure_ascii=False) if quote else value
    return as_yaml(value, inline=True)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises Unreadable."""
    try:
        return yamlio.parse(text, "")[0]
    except RecipeError as error:
        raise Unreadable(error.problem, error.hint) from error


def as_yaml(value: Any, *, inline: bool = False) -> str:
    """A value as YAML; inline: in one line."""
    written: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10**6 if inline else 100,
        default_flow_style=inline,
    )
    return written.removesuffix("\n").removesuffix("\n...") if inline else written


def _number(text: str, widget: str) -> int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and abs(float(text)) < float("inf"):
        return float(text)
    plain = text.replace(",", "").replace(" ", "").replace("_", "")
    hint = f"write {plain}" if plain != text and _NUMBER.fullmatch(plain) else "such as 1e-4"
    if widget == "integer" and hint == "such as 1e-4":
        hint = "such as 8"
    wanted = "a whole number" if widget == "integer" else "a number"
    raise Unreadable(f"found {text[:80]!r}, expected {wanted}", hint)


def _lines(field: Field, text: str) -> Any:
    """A list of texts, separated by commas or lines. One that stands for a list stays a text."""
    if text.strip() in field.choices:
        return text.strip()
    if text.lstrip().startswith(("[", "{")):
        return parse_yaml(text)
    try:
        rows = list(csv.reader(io.StringIO(text), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise Unreadable(f"found {text[:80]!r}, expected texts with commas between") from error
    return [item.strip() for row in rows for item in row if item.strip()]


def _item(text: str) -> str:
    is_plain = not set(text) & set(',"') and text[0] not in "[{"
    return text if is_plain else '"' + text.replace('"', '""') + '"'


def _unquoted(text: str) -> str:
    """The text; one in double quotes is a JSON text, so that "" is an empty one."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            found = json.loads(text)
        except ValueError:
            return text
        return found if isinstance(found, str) else text
    return text.strip()


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < float("inf")


class _Dumper(yaml.SafeDumper):
    """Numbers that YAML 1.1 and 1.2 read alike, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _float(dumper: _Dumper, found: float) -> Any:
    text = repr(found)
    if text in ("inf", "-inf", "nan"):
        text = text.replace("inf", ".inf").replace("nan", ".nan")
    elif "." not in text and "e" in text:  # 5e-06 is a text in YAML 1.1
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _text(dumper: _Dumper, found: str) -> Any:
    """Quoted where YAML 1.2 reads something else, such as 1e5."""
    is_plain = found and not re.fullmatch(r"[-+.]?[0-9].*|0[ox].*|[~=!&*?|>%@`].*", found)
    style = "|" if "\n" in found and found == found.strip() else None if is_plain else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", found, style)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _text)
