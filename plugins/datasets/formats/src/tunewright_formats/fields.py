"""Reading the fields of a record. A problem is a RowError: the field, what was found, what is expected."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from tunewright import Format, RecipeError, RowError
from tunewright.errors import did_you_mean
from tunewright.types import Origin, Row, Rows, RowsRequest

Where = tuple[str, ...]


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
    """The value as a text; '' where it is null, as files with fixed columns write what is not there."""
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

    def __init__(self, known: tuple[str, ...], required: tuple[str, ...], renamed: Mapping[str, str]) -> None:
        check_names(renamed, known, "columns")
        self.names = {name: renamed.get(name, name) for name in known}
        # what the recipe names must be there too: a misspelt column would else lose its texts silently
        self.required = [self.names[name] for name in known if name in required or name in renamed]

    def read(self, record: Any) -> dict[str, Any]:
        """The record's values by the format's names; None where a column is not there."""
        found = mapping(record, "record")
        for source in self.required:
            if source not in found:
                bad(source, f"is missing; the record has {', '.join(found) or 'nothing'}")
        return {name: found.get(source) for name, source in self.names.items()}


def check_names(renamed: Mapping[str, str], known: tuple[str, ...], what: str) -> None:
    for name in renamed:
        if name not in known:
            raise RecipeError(
                f"the format has no {name!r} to rename", place=f"data: {what}", hint=did_you_mean(name, known)
            )


def convert(plugin: Format, request: RowsRequest, one: Callable[[Any], Row]) -> Iterator[Row | RowError]:
    """Convert record by record, lazily. Raises RecipeError at once where the format cannot give such rows."""
    if request.rows not in plugin.rows:
        raise RecipeError(needs(plugin, request.rows))
    return _each(request.records, one)


def needs(plugin: Format, rows: Rows) -> str:
    return f"format {plugin.name!r} gives {' or '.join(plugin.rows)}, the stage needs {rows}"


def _each(records: Iterator[tuple[Origin, Any]], one: Callable[[Any], Row]) -> Iterator[Row | RowError]:
    for origin, record in records:
        try:
            row = one(record)
        except RowError as error:
            yield RowError(error.problem, place=str(origin), hint=error.hint)
        else:
            row.origin = origin
            yield row
