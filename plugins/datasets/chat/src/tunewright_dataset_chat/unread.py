"""What records hold and nobody reads: columns, and keys of messages."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from tunewright import RowError

_COUNTED = 100  # different names that are told apart
_SHOWN = 8  # names in a line, those of most records first
_LONGEST = 40  # characters of a name in a line


@dataclass(slots=True)
class Unread:
    """Counts over the records of a source."""

    rows: int = 0  # records that hold something of the kind
    columns: Counter[str] = field(default_factory=Counter)  # name → records
    keys: Counter[str] = field(default_factory=Counter)  # name → records

    def count(self, columns: Iterable[str], keys: Iterable[str]) -> None:
        """Count one record's names."""
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
        """`not read: columns a, b; message keys x (12 rows)`, or nothing where all was read."""
        if not self.rows:
            return ""
        names = [[name for name, _ in one.most_common()] for one in (self.columns, self.keys)]
        return f"not read: {_said(*names)} ({self.rows:,} row{'s' * (self.rows != 1)})"


def refuse(columns: Collection[str], keys: Collection[str]) -> None:
    """In place of counting, where nothing may be left unread. Raises RowError."""
    hint = (
        "name the column in `columns:`, take it out of the data, or set dataset.on_unread to 'warn'"
    )
    raise RowError(f"has what is not read: {_said(list(columns), list(keys))}", hint=hint)


def _said(columns: list[str], keys: list[str]) -> str:
    what = ((columns, "column"), (keys, "message key"))
    return "; ".join(f"{kind}{'s' * (len(n) > 1)} {listed(n)}" for n, kind in what if n)


def listed(names: list[str]) -> str:
    """Names that come from data, for a line: the first of them, shortened, nothing unprintable."""
    shown = [name if name.isprintable() else ascii(name) for name in map(str, names[:_SHOWN])]
    shown = [name if len(name) <= _LONGEST else name[: _LONGEST - 3] + "..." for name in shown]
    more = len(names) - _SHOWN
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
