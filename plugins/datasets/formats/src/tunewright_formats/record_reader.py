"""Reading of the records of one source: columns by the format's names, and unread columns."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from tunewright import Format, RecipeError, RowError
from tunewright.errors import did_you_mean
from tunewright.types import Row, RowsRequest
from tunewright_formats.fields import bad, label, listed, mapping

_LOOKED_AT = 50  # columns of a record, for one that is nearly right
#: values that need not be read: nothing is lost
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class RecordReader:
    """Maps the columns of one source to the format's names.

    known: the format's columns. required: those that a record must have. keeps_rest: unknown
    columns are kept with the row, and count as read.

    Unread names are passed to the request's `unread`, if given: a function that takes the names of
    columns and of message keys, once per record that has any. It may raise RowError, which then
    replaces the record's rows.

    padded: records come from Arrow, which gives all objects of a column the same keys, with null
    where the row had none.
    """

    def __init__(
        self,
        request: RowsRequest,
        known: tuple[str, ...],
        required: tuple[str, ...] = (),
        keeps_rest: bool = False,
    ) -> None:
        renamed = request.columns
        if not keeps_rest:
            check_names(renamed, known, "columns")
        every = dict.fromkeys((*known, *renamed))
        self.names = {name: renamed.get(name, name) for name in every}
        self.renamed = frozenset(renamed)
        self.padded = request.padded
        # {instruction: input} makes the column input the instruction; it is then not also the
        # format's input
        self._taken = {name for name in every if name not in renamed and name in renamed.values()}
        # columns named in the recipe are required: a misspelt one would silently lose its texts
        self.required = [self.names[name] for name in every if name in required or name in renamed]
        self._keeps_rest = keeps_rest
        self._known = frozenset(self.names.values())
        self._tell = request.unread
        self._columns: dict[str, None] = {}  # unread columns of this record, in order
        self._keys: dict[str, None] = {}

    def read(self, record: Any) -> dict[str, Any]:
        """The record's values by the format's names; None if a column is missing."""
        found = mapping(record, "record")
        if self._columns or self._keys:
            self._columns, self._keys = {}, {}
        for source in self.required:
            if source not in found:
                close = get_close_matches(source, list(found)[:_LOOKED_AT], n=1)
                hint = f"did you mean {close[0]!r}?" if close else ""
                bad(source, f"is missing; the record has {listed(found) or 'nothing'}", hint)
        if not self._keeps_rest and not found.keys() <= self._known:
            self._columns.update(_left(found, self._known))
        return {
            name: None if name in self._taken else found.get(source)
            for name, source in self.names.items()
        }

    def first(self, values: Mapping[str, Any], choices: tuple[str, ...]) -> str | None:
        """Of several columns with the same meaning, the one that the recipe names, or the first one
        present. The others count as unread."""
        given = [name for name in choices if values[name] is not None]
        named = not self.renamed.isdisjoint(choices)
        chosen = next((name for name in given if not named or name in self.renamed), None)
        if len(given) > 1 or given != [chosen]:
            self.leave(values, (name for name in given if name != chosen))
        return chosen

    def leave(self, values: Mapping[str, Any], names: Iterable[str]) -> None:
        """Mark columns of the format as unread in this record."""
        if not self._keeps_rest:
            self._columns |= {
                self.names[name]: None for name in names if values[name] not in _EMPTY
            }

    def keys(self, value: Mapping[str, Any], known: frozenset[str], prefix: str = "") -> None:
        """Mark unknown keys of a message, or of a part of it, as unread."""
        if not value.keys() <= known:
            self._keys |= {f"{prefix}{key}": None for key in _left(value, known)}

    def tell(self) -> None:
        """Report the unread names of the finished record. Raises what `unread` raises."""
        if self._tell and (self._columns or self._keys):
            self._tell(self._columns, self._keys)

    def no_prompt(self, record: dict[str, Any], choices: tuple[str, ...]) -> NoReturn:
        """Raise RowError: the record has none of these columns. Suggests a similar one."""
        asked = next(
            (
                name
                for name, value in record.items()
                if name not in self._known and isinstance(value, str | list) and value
            ),
            None,
        )
        hint = f"`columns: {{{choices[0]}: {listed([asked])}}}`, if that is it" if asked else ""
        expected = f"expected a prompt in {', '.join(self.names[name] for name in choices)}"
        found = f"an object with {listed(record)}" if record else "an empty object"
        raise RowError(f"record: found {found}, {expected}", hint=hint)


def _left(found: Mapping[str, Any], known: frozenset[str]) -> dict[str, None]:
    return {
        name: None for name, value in found.items() if name not in known and value not in _EMPTY
    }


def check_names(renamed: Mapping[str, str], known: tuple[str, ...], what: str) -> None:
    for name in renamed:
        if name not in known:
            raise RecipeError(
                f"the format has no {name!r} to rename",
                place=f"data: {what}",
                hint=did_you_mean(name, known),
            )


# ---- record by record ----------------------------------------------------------------------------


def convert(
    plugin: Format, request: RowsRequest, reader: RecordReader | None, one: Callable[[Any], Row]
) -> Iterator[Row | RowError]:
    """Convert record by record, lazily. Raises RecipeError at once if the format cannot produce
    such rows."""
    return convert_many(plugin, request, reader, lambda record: [one(record)])


def convert_many(
    plugin: Format,
    request: RowsRequest,
    reader: RecordReader | None,
    some: Callable[[Any], Sequence[Row]],
) -> Iterator[Row | RowError]:
    """Like `convert`, for formats in which a record gives one or more rows."""
    if request.rows not in plugin.rows:
        gives = " or ".join(plugin.rows)
        raise RecipeError(f"format {plugin.name!r} gives {gives}, the stage needs {request.rows}")
    return _each(request, reader, some)


def _each(
    request: RowsRequest, reader: RecordReader | None, some: Callable[[Any], Sequence[Row]]
) -> Iterator[Row | RowError]:
    for origin, record in request.records:
        try:
            if request.rows == "messages" and (column := label(record)):
                problem = "says whether the answer is good, and all answers would be trained alike"
                hint = (
                    "`format: unpaired` reads it; leave the column out where it says something else"
                )
                bad(column, problem, hint)
            found = some(record)
            if reader and isinstance(record, dict):
                reader.tell()
        except RowError as error:
            yield RowError(error.problem, place=str(origin), hint=error.hint)
            continue
        except RecursionError:
            yield RowError("is nested too deeply", place=str(origin))
            continue
        for row in found:
            row.origin = origin
            yield row
