"""Reading of record fields. Problems are RowErrors: field, found, expected."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from tunewright import RowError
from tunewright.jsontext import unique_keys

#: columns of chosen and rejected answers
PAIRS = (("chosen", "rejected"), ("chosen_messages", "rejected_messages"))

#: limit of scores and margins, both signs: losses are float32
LARGEST = 1_000_000_000
_LONG = 10**20  # larger numbers are not written out in errors
_SHOWN = 12  # names listed in an error


def describe(value: Any) -> str:
    """Describe a value for an error: its type, and its start if that is short and plain."""
    if value is None:
        return "null"
    if isinstance(value, int) and abs(value) >= _LONG:
        return "a number of many digits"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if isinstance(value, dict):
        return f"an object with {listed(value)}" if value else "an empty object"
    return "a list" if isinstance(value, list) else type(value).__name__


def listed(names: Iterable[Any]) -> str:
    """List names from the data for an error: the first few, shortened, printable."""
    every = list(names)
    shown = [name if name.isprintable() else ascii(name) for name in map(str, every[:_SHOWN])]
    shown = [name if len(name) <= 40 else name[:37] + "..." for name in shown]
    more = [f"{len(every) - _SHOWN:,} more"] if len(every) > _SHOWN else []
    return ", ".join([*shown, *more])


def bad(field: str, problem: str, hint: str = "") -> NoReturn:
    raise RowError(f"{field}: {problem}", hint=hint)


def text(value: Any, field: str) -> str:
    """Return the value if it is a non-empty text."""
    if not isinstance(value, str):
        bad(field, f"found {describe(value)}, expected text")
    if not value.strip():
        bad(field, "is empty, expected text")
    return value


def optional_text(value: Any, field: str) -> str:
    """Return the value as a text; '' for null, which stands for absent values in files with fixed
    columns."""
    if value is None:
        return ""
    if not isinstance(value, str):
        bad(field, f"found {describe(value)}, expected text")
    return value


def mapping(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        bad(field, f"found {describe(value)}, expected an object")
    return value


def listing(value: Any, field: str) -> list[Any]:
    """Return the value if it is a non-empty list."""
    if not isinstance(value, list):
        bad(field, f"found {describe(value)}, expected a list")
    if not value:
        bad(field, "is empty, expected at least one item")
    return value


def number(value: Any, field: str) -> float:
    """Return the value if it is a number in the range of losses."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        bad(field, f"found {describe(value)}, expected a number")
    if not -LARGEST <= value <= LARGEST:  # also rejects NaN
        bad(field, f"found {describe(value)}, expected a number of at most {LARGEST:,}")
    return float(value)


def from_json(value: Any, field: str) -> Any:
    """Return the value, parsed if it is a JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        bad(field, f"found {describe(value)}, expected JSON: {error}")


def spellings(
    tags: Mapping[str, str], known: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Our name of a role or key → its names in this source."""
    return {name: (tags[name],) if name in tags else spelt for name, spelt in known.items()}


# ---- what a record says of its answers -----------------------------------------------------------


def is_flag(value: Any) -> bool:
    """Whether a value is true or false, or their text as in CSV files."""
    return isinstance(value, bool) or (
        isinstance(value, str) and value.lower() in ("true", "false")
    )


def label(record: Any) -> str | None:
    """Name of the column with the label of the record's answer."""
    if not isinstance(record, dict):
        return None
    if record.get("kto_tag") is not None:
        return "kto_tag"
    return "label" if is_flag(record.get("label")) else None


def compared(record: dict[str, Any]) -> bool:
    """Whether a record's answers are compared, ranked or labelled: formats of one answer do not
    fit."""
    if any(record.get(a) is not None and record.get(b) is not None for a, b in PAIRS):
        return True
    return is_ranked(record) or is_stepwise(record) or label(record) is not None


def is_ranked(record: dict[str, Any]) -> bool:
    return isinstance(record.get("answers"), list) and any(
        isinstance(record.get(n), list) for n in ("ranks", "scores")
    )


def is_stepwise(record: dict[str, Any]) -> bool:
    """Whether a record has the steps of an answer with a label for each."""
    return all(isinstance(record.get(name), list) for name in ("completions", "labels"))


def is_turns(value: Any, key: str) -> bool:
    """Whether a value is a list of turns with that role key."""
    return isinstance(value, list) and all(isinstance(turn, dict) and key in turn for turn in value)


def unanswered(turns: Any, key: str) -> bool:
    """Whether the last of these turns is from the user."""
    return bool(turns) and turns[-1][key] in ("user", "human")
