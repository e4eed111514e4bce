"""Reads the records of one source: columns by the format's names, and what nothing has read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from tunewright import Format, RecipeError, RowError
from tunewright.errors import did_you_mean
from tunewright.types import Row, RowsRequest
from tunewright_formats.fields import bad, label, listed, mapping

#: values in which nothing is lost when nobody reads them
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class RecordReader:
    """The columns of one source: the format's names, and what the source calls them.

    known: the format's columns. required: those that a record must have. keeps_rest: columns
    that the format does not know are kept with the row, and count as read.

    What a record holds and nothing reads is given to the request's `unread`, where it has one: a
    function that takes the names of columns and of message keys, once for each record that has
    any. It may raise RowError, which then stands in place of the record's rows.

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
        # {instruction: input} says that the column input is the instruction: it is not the format's
        # input as well
        self._taken = {name for name in every if name not in renamed and name in renamed.values()}
        # what the recipe names must be there too: a misspelt column would else lose its texts
        # silently
        self.required = [self.names[name] for name in every if name in required or name in renamed]
        self._keeps_rest = keeps_rest
        self._known = frozenset(self.names.values())
        self._tell = request.unread
        self._columns: dict[str, None] = {}  # of this record, in order
        self._keys: dict[str, None] = {}

    def read(self, record: Any) -> dict[str, Any]:
        """The record's values by the format's names; None where a column is not there."""
        found = mapping(record, "record")
        if self._columns or self._keys:
            self._columns, self._keys = {}, {}
        for source in self.required:
            if source not in found:
                bad(source, f"is missing; the record has {listed(found) or 'nothing'}")
        if not self._keeps_rest and not found.keys() <= self._known:
            self._columns.update(_left(found, self._known))
        return {
            name: None if name in self._taken else found.get(source)
            for name, source in self.names.items()
        }

    def first(self, values: Mapping[str, Any], choices: tuple[str, ...]) -> str | None:
        """Of several columns that may say the same: the one that the recipe names, or the first
        that is there. The others count as not read."""
        given = [name for name in choices if values[name] is not None]
        named = not self.renamed.isdisjoint(choices)
        chosen = next((name for name in given if not named or name in self.renamed), None)
        if len(given) > 1 or given != [chosen]:
            self.leave(values, (name for name in given if name != chosen))
        return chosen

    def leave(self, values: Mapping[str, Any], names: Iterable[str]) -> None:
        """These columns of the format are not read in this record."""
        if not self._keeps_rest:
            self._columns |= {
                self.names[name]: None for name in names if values[name] not in _EMPTY
            }

    def keys(self, value: Mapping[str, Any], known: frozenset[str], prefix: str = "") -> None:
        """Note the keys of a message, or of something in it, that nothing reads."""
        if not value.keys() <= known:
            self._keys |= {f"{prefix}{key}": None for key in _left(value, known)}

    def tell(self) -> None:
        """The record is read: tell what is left of it. Raises what it raises."""
        if self._tell and (self._columns or self._keys):
            self._tell(self._columns, self._keys)

    def no_prompt(self, record: dict[str, Any], choices: tuple[str, ...]) -> NoReturn:
        """Raises RowError: none of these columns is in the record. Names one that may be meant."""
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
    """Convert record by record, lazily. Raises RecipeError at once where the format cannot give
    such rows."""
    return convert_many(plugin, request, reader, lambda record: [one(record)])


def convert_many(
    plugin: Format,
    request: RowsRequest,
    reader: RecordReader | None,
    some: Callable[[Any], Sequence[Row]],
) -> Iterator[Row | RowError]:
    """The same for formats in which a record gives one or more rows."""
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
