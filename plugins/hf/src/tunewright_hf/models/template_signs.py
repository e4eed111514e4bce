"""Signs of a checkpoint's template in its tokenizer: the [[detect]] of a family's checkpoints.toml,
and exports of installed templates."""

import re
from dataclasses import dataclass, field
from typing import Any

from tunewright import TunewrightError, registry
from tunewright_hf.templates.exported import exported_options

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class FoundTemplate:
    """A checkpoint's template. None: unknown."""

    name: str | None
    options: dict[str, Any] = field(default_factory=dict)
    told: bool = False  # detected from the tokenizer


def fits(rule: dict[str, Any], vocabulary: dict[str, int], own: str) -> bool:
    """Whether a [[detect]] rule matches a tokenizer with this vocabulary and chat template.

    A rule of tokens alone does not match if a chat template writes none of them: then the format is
    another one.
    """
    pieces, tokens = rule.get("chat_template"), rule.get("tokens", ())
    if pieces is None:
        known = not own or any(token in own for token in tokens)
    else:
        known = (
            all(piece in own for piece in ([pieces] if isinstance(pieces, str) else pieces))
            if pieces
            else not own
        )
    return known and all(token in vocabulary for token in tokens)


def exported(own: str, first: list[str], named: str | None) -> FoundTemplate | None:
    """The installed template file that is exported as this chat template; of several alike, one of
    `first`. named: look at this one alone."""
    alike = {}
    for entry in registry.entries("template"):
        if ":" in entry.value or named not in (None, entry.name):
            continue  # Python code, which is imported only if requested
        try:
            options = exported_options(registry.load(entry), own)
        except TunewrightError:
            continue  # a broken one that is not needed
        if options is not None:
            alike[entry.name] = FoundTemplate(entry.name, options)
    return next((alike[name] for name in [*first, *alike] if name in alike), None)


def options_of(rule: dict[str, Any], own: str) -> dict[str, Any]:
    """The template's options that a [[detect]] gives to a checkpoint with this chat template."""
    options: dict[str, Any] = dict(rule.get("template_options", {}))
    if name := rule.get("system_variable"):
        found = re.search(rf"\bset {name} = ('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\s*-?%}}", own)
        if found:  # a constant, whose escapes are Python's
            text = found[1][1:-1].encode("ascii", "backslashreplace").decode("unicode-escape")
            options["system"] = text
    return options
