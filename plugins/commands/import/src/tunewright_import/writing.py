"""Recipes as YAML text, with what could not be translated in comments."""

import textwrap
from typing import Any

import yaml

from tunewright_import.translation import Note, Translation

_HEADINGS = {
    "missing": "without a counterpart here",
    "said": "translated, with a difference",
    "command": "given elsewhere",
    "unneeded": "not needed here",
    "off": "switched off, as here",
}
#: order of a recipe's sections
_ORDER = (
    *("model", "family", "quantizer", "adapter", "template", "dataset", "data", "eval_data"),
    *("stage", "optimizer", "scheduler", "accelerators", "training", "launch", "loggers", "output"),
)


def as_yaml(result: Translation, source: str) -> str:
    """The recipe of a translation. source: the configuration, as the user named it."""
    sections = {key: result.recipe[key] for key in _ORDER if key in result.recipe}
    text = yaml.dump(sections, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return f"# Translated from {source} by tunewright import.\n{text}{_comments(result.notes)}"


def summary(notes: list[Note]) -> str:
    """Differences and keys without a counterpart, one a line: a reader has to look at them."""
    lines = [
        f"{note.key}: {note.text}" for note in notes if note.kind in ("missing", "said", "command")
    ]
    return "\n".join(lines)


def _comments(notes: list[Note]) -> str:
    parts = []
    for kind, heading in _HEADINGS.items():
        found = [note for note in notes if note.kind == kind]
        if not found:
            continue
        if kind == "off":
            lines = textwrap.wrap(", ".join(note.key for note in found), 95)
        else:
            lines = [f"{note.key}: {note.text}" for note in found]
        parts += [f"\n# {heading}:", *(f"#   {line}" for line in lines)]
    return "\n".join(parts) + "\n" if parts else ""


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, and writes short mappings and lists in one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _in_one_line(dumper: yaml.SafeDumper, node: Any, flow: bool) -> Any:
    node.flow_style = flow
    return node


def _mapping(dumper: _Dumper, found: dict[str, Any]) -> Any:
    plain = all(not isinstance(value, dict | list) for value in found.values())
    flow = plain and ("name" in found or len(found) == 1) and len(str(found)) < 90
    return _in_one_line(dumper, dumper.represent_mapping("tag:yaml.org,2002:map", found), flow)


def _sequence(dumper: _Dumper, found: list[Any]) -> Any:
    flow = all(isinstance(item, str | int | float) for item in found) and len(str(found)) < 90
    return _in_one_line(dumper, dumper.represent_sequence("tag:yaml.org,2002:seq", found), flow)


def _number(dumper: _Dumper, found: float) -> Any:
    text = repr(found)
    if "." not in text:  # 5e-06 is text in YAML 1.1
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(float, _number)
