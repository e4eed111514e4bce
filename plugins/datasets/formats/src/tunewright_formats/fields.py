"""Reading the fields of a record. A problem is a RowError: the field, what was found, what is
expected."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from tunewright import Format, RecipeError, RowError
from tunewright.errors import did_you_mean
from tunewright.types import Row, RowsRequest

#: columns of a better and a worse answer
PAIRS = (("chosen", "rejected"), ("chosen_messages", "rejected_messages"))


def describe(value: Any) -> str:
    """A value in the words of an error: its type, and its start where that is short and plain."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, value))}" if value else "an empty object"
    return "a list" if isinstance(value, list) else type(value).__name__


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


def from_json(value: Any, field: str) -> Any:
    """The value, parsed where it is a text of JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        bad(field, f"found {describe(value)}, expected JSON: {error}")


class Columns:
    """The columns of one source: the format's names, and what the source calls them."""

    def __init__(
        self, known: tuple[str, ...], required: tuple[str, ...], renamed: Mapping[str, str]
    ) -> None:
        check_names(renamed, known, "columns")
        self.names = {name: renamed.get(name, name) for name in known}
        self.renamed = frozenset(renamed)
        # {instruction: input} says that the column input is the instruction: it is not the format's
        # input as well
        self._taken = {name for name in known if name not in renamed and name in renamed.values()}
        # what the recipe names must be there too: a misspelt column would else lose its texts
        # silently
        self.required = [self.names[name] for name in known if name in required or name in renamed]

    def read(self, record: Any) -> dict[str, Any]:
        """The record's values by the format's names; None where a column is not there."""
        found = mapping(record, "record")
        for source in self.required:
            if source not in found:
                bad(source, f"is missing; the record has {', '.join(found) or 'nothing'}")
        return {
            name: None if name in self._taken else found.get(source)
            for name, source in self.names.items()
        }

    def first(self, values: Mapping[str, Any], choices: tuple[str, ...]) -> str | None:
        """Of several columns that may say the same: the one that the recipe names, or the first
        that is there."""
        named = [name for name in choices if name in self.renamed]
        return next((name for name in named or choices if values[name] is not None), None)


def check_names(renamed: Mapping[str, str], known: tuple[str, ...], what: str) -> None:
    for name in renamed:
        if name not in known:
            raise RecipeError(
                f"the format has no {name!r} to rename",
                place=f"data: {what}",
                hint=did_you_mean(name, known),
            )


def spellings(
    tags: Mapping[str, str], known: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Our name of a role or key → what this source calls it."""
    return {name: (tags[name],) if name in tags else spelt for name, spelt in known.items()}


def convert(
    plugin: Format, request: RowsRequest, one: Callable[[Any], Row]
) -> Iterator[Row | RowError]:
    """Convert record by record, lazily. Raises RecipeError at once where the format cannot give
    such rows."""
    return convert_many(plugin, request, lambda record: [one(record)])


def convert_many(
    plugin: Format, request: RowsRequest, some: Callable[[Any], Sequence[Row]]
) -> Iterator[Row | RowError]:
    """The same for formats in which a record gives one or more rows."""
    if request.rows not in plugin.rows:
        gives = " or ".join(plugin.rows)
        raise RecipeError(f"format {plugin.name!r} gives {gives}, the stage needs {request.rows}")
    return _each(request, some)


def _each(request: RowsRequest, some: Callable[[Any], Sequence[Row]]) -> Iterator[Row | RowError]:
    for origin, record in request.records:
        try:
            if request.rows == "messages" and (column := label(record)):
                problem = "says whether the answer is good, and all answers would be trained alike"
                bad(
                    column,
                    problem,
                    (
                        "`format: unpaired` reads it; leave the "
                        "column out where it says something else"
                    ),
                )
            found = some(record)
        except RowError as error:
            yield RowError(error.problem, place=str(origin), hint=error.hint)
            continue
        for row in found:
            row.origin = origin
            yield row


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
