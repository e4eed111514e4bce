"""Columns and message keys of records that nothing reads."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from tunewright import RowError
from tunewright.words import counted

Tell = Callable[[Collection[str], Collection[str]], None]
_COUNTED = 100  # distinct names that are counted
_SHOWN = 8  # names in a line, the most frequent first
_LONGEST = 40  # characters of a name in a line


@dataclass(slots=True)
class Unread:
    """Counts of unread names in the records of a source."""

    rows: int = 0  # records with unread names
    columns: Counter[str] = field(default_factory=Counter)  # name → records
    keys: Counter[str] = field(default_factory=Counter)  # name → records

    def count(self, columns: Iterable[str], keys: Iterable[str]) -> None:
        """Count the names of one record."""
        self.rows += 1
        for counter, names in ((self.columns, columns), (self.keys, keys)):
            for name in names:
                if name in counter or len(counter) < _COUNTED:
                    counter[name] += 1

    def add(self, other: "Unread") -> None:
        self.rows += other.rows
        self.columns += other.columns
        self.keys += other.keys

    def as_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "columns": dict(self.columns), "keys": dict(self.keys)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Unread":
        return cls(value["rows"], Counter(value["columns"]), Counter(value["keys"]))

    def line(self) -> str:
        """`not read: columns a, b; message keys x (12 rows)`, or empty if everything was read."""
        if not self.rows:
            return ""
        names = [[name for name, _ in one.most_common()] for one in (self.columns, self.keys)]
        return f"not read: {_said(*names)} ({counted(self.rows, 'row')})"


def refuse(columns: Collection[str], keys: Collection[str]) -> None:
    """Raise RowError for unread names; used instead of counting."""
    hint = (
        "name the column in `columns:`, take it out of the data, or set dataset.on_unread to 'warn'"
    )
    raise RowError(f"has what is not read: {_said(list(columns), list(keys))}", hint=hint)


def without(column: str, tell: Tell) -> Tell:
    """`tell`, without a column that is read elsewhere."""

    def others(columns: Collection[str], keys: Collection[str]) -> None:
        left = [name for name in columns if name != column]
        if left or keys:
            tell(left, keys)

    return others


def check_columns(columns: list[str], place: str) -> None:
    """Raise RowError if a table has two columns of one name: one would be lost."""
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise RowError(
            f"has the column {listed(twice)} twice", place=place, hint="rename one of them"
        )


def _said(columns: list[str], keys: list[str]) -> str:
    what = ((columns, "column"), (keys, "message key"))
    return "; ".join(f"{kind}{'s' * (len(n) > 1)} {listed(n)}" for n, kind in what if n)


def listed(names: list[str]) -> str:
    """List names from the data: the first few, shortened, printable."""
    shown = [name if name.isprintable() else ascii(name) for name in map(str, names[:_SHOWN])]
    shown = [name if len(name) <= _LONGEST else name[: _LONGEST - 3] + "..." for name in shown]
    more = len(names) - _SHOWN
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
