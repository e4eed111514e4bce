"""Guides of answers as grammars of xgrammar.

White space between JSON tokens is that of `json.dumps`: with any white space, models fill their
answers with it.
"""

import json
from importlib.util import find_spec
from typing import Any

from tunewright import RowError
from tunewright.inference import Grammar, Guide, JsonSchema, Regex

__all__ = ["check_installed", "grammar", "grammar_text", "is_installed", "unusable"]

_LONGEST = 100_000  # characters of a guide
#: a character of a string that has a maxLength, as xgrammar 0.2 writes it: with control characters,
#: which no JSON has
_LOOSE, _STRICT = r"[^\"\\\r\n]", r"[^\0-\x1f\"\\\r\n]"


def is_installed() -> bool:
    return find_spec("xgrammar") is not None


def check_installed() -> None:
    """Raise RowError if xgrammar is missing."""
    if not is_installed():
        hint = "pip install 'xgrammar<0.3'"
        raise RowError("guided decoding needs xgrammar", place="guide", hint=hint)


def grammar(guide: Guide) -> Any:
    """Uncompiled xgrammar.Grammar of a guide. Raises RowError if it is invalid or xgrammar is
    missing."""
    check_installed()
    if len(repr(guide)) > _LONGEST:
        raise RowError(f"has more than {_LONGEST} characters", place="guide")
    try:
        return _grammar(guide)
    except Exception as error:  # xgrammar raises RuntimeError, and others for JSON Schema
        raise unusable(error) from error


def grammar_text(guide: Guide) -> str:
    """The same in EBNF, for servers that compile it. Raises RowError."""
    return str(grammar(guide)).replace(_LOOSE, _STRICT)


def unusable(error: Exception) -> RowError:
    said = " ".join(str(error).split())[:300]
    return RowError(f"cannot be used: {said}", place="guide")


def _grammar(guide: Guide) -> Any:
    from xgrammar import Grammar as Made

    if isinstance(guide, Regex):
        return Made.from_regex(guide.pattern)
    if isinstance(guide, Grammar):
        return Made.from_ebnf(guide.text)
    assert isinstance(guide, JsonSchema)
    parts = [Made.from_json_schema(json.dumps(guide.schema), any_whitespace=False)]
    if guide.before:
        parts.insert(0, Made.from_ebnf(f"root ::= {json.dumps(guide.before)}"))
    if guide.after:
        parts.append(Made.from_ebnf(f"root ::= {json.dumps(guide.after)}"))
    return parts[0] if len(parts) == 1 else Made.concat(*parts)
