"""Reading the fields of a record. A problem is a RowError: the field, what was found, what is
expected."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from tunewright import RowError

#: columns of a better and a worse answer
PAIRS = (("chosen", "rejected"), ("chosen_messages", "rejected_messages"))

#: of scores, margins and the like, to both sides: losses are float32
LARGEST = 1_000_000_000
_LONG = 10**20  # numbers that are not written out in an error
_SHOWN = 12  # names that are written out in an error


def describe(value: Any) -> str:
    """A value in the words of an error: its type, and its start where that is short and plain."""
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
    """Names that come from data, for an error: the first of them, short, all printable."""
    every = list(names)
    shown = [name if name.isprintable() else ascii(name) for name in map(str, every[:_SHOWN])]
    shown = [name if len(name) <= 40 else name[:37] + "..." for name in shown]
    more = [f"{len(every) - _SHOWN:,} more"] if len(every) > _SHOWN else []
    return ", ".join([*shown, *more])


def bad(field: str, problem: str, hint: str = "") -> NoReturn:
    raise RowError(f"{field}: {problem}", hint=hint)


def text(value: Any, field: str) -> str:
    """The value, which must be a text with something in it."""
    if not isinstance(value, str):
        bad(field, f"found {describe(value)}, expected text")
    if not value.strip():
        bad(field, "is empty, expected text")
    return value


def optional_text(value: Any, field: str) -> str:
    """The value as a text; '' where it is null, as files with fixed columns write what is not
    there."""
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
    """The value, which must be a list with something in it."""
    if not isinstance(value, list):
        bad(field, f"found {describe(value)}, expected a list")
    if not value:
        bad(field, "is empty, expected at least one item")
    return value


def number(value: Any, field: str) -> float:
    """The value, a number that losses can bear."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        bad(field, f"found {describe(value)}, expected a number")
    if not -LARGEST <= value <= LARGEST:  # NaN neither
        bad(field, f"found {describe(value)}, expected a number of at most {LARGEST:,}")
    return float(value)


def from_json(value: Any, field: str) -> Any:
    """The value, parsed where it is a text of JSON."""
    if not isinstance(value, str):
        return value
    try:
        return _DECODER.decode(value)
    except (ValueError, RecursionError) as error:
        bad(field, f"found {describe(value)}, expected JSON: {error}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where it has one key twice: a value would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = (name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"an object has the key {listed(twice)} twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def spellings(
    tags: Mapping[str, str], known: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Our name of a role or key → what this source calls it."""
    return {name: (tags[name],) if name in tags else spelt for name, spelt in known.items()}


# ---- what a record says of its answers -----------------------------------------------------------


def is_flag(value: Any) -> bool:
    """True and false, also as text, as a CSV file has them."""
    return isinstance(value, bool) or (
        isinstance(value, str) and value.lower() in ("true", "false")
    )


def label(record: Any) -> str | None:
    """The column that says whether the record's one answer is good."""
    if not isinstance(record, dict):
        return None
    if record.get("kto_tag") is not None:
        return "kto_tag"
    return "label" if is_flag(record.get("label")) else None


def compared(record: dict[str, Any]) -> bool:
    """Whether a record has answers that are compared, ranked or labelled: formats of one answer do
    not fit then."""
    if any(record.get(a) is not None and record.get(b) is not None for a, b in PAIRS):
        return True
    return is_ranked(record) or label(record) is not None


def is_ranked(record: dict[str, Any]) -> bool:
    return isinstance(record.get("answers"), list) and any(
        isinstance(record.get(n), list) for n in ("ranks", "scores")
    )


def is_turns(value: Any, key: str) -> bool:
    """Whether a value is a list of turns with that key, which holds the role."""
    return isinstance(value, list) and all(isinstance(turn, dict) and key in turn for turn in value)


def unanswered(turns: Any, key: str) -> bool:
    """Whether the last of these turns is from the user."""
    return bool(turns) and turns[-1][key] in ("user", "human")
