"""Tables of data statistics."""

from statistics import mean, median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunewright.terminal import printable
from tunewright_data import media
from tunewright_data.preview import histogram

_MEDIA = ("", "count", "rows", "tokens", "", "smallest", "median", "largest", "seconds")


def show(stats: Any) -> None:
    """Print the result of a dataset plugin's `stats`: lengths (tokens per example), trained_tokens,
    sources (title → rows and tokens), roles (→ messages), turns (→ rows), duplicates, media (by
    kind), rows_read, dropped and notes."""
    console = Console()
    for title, columns, rows in tables(stats):
        # rich wraps a table's own title at the width of the table
        console.print(Text(printable(title), "bold"))
        table = Table(*columns, box=None)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console.print(table, "")
    for note in stats.notes:
        console.print(Text(printable(f"  {note}"), "cyan"), soft_wrap=True)
    if stats.lengths:
        console.print(Text("\nTokens of a row", "bold"))
        for bar in histogram(sorted(stats.lengths)):
            console.print(Text(f"  {bar}"), soft_wrap=True)


def tables(stats: Any) -> list[tuple[str, tuple[str, ...], list[Any]]]:
    """(title, columns, rows) of each table that is not empty."""
    lengths, total = stats.lengths or [0], sum(stats.lengths)
    kept = len(stats.lengths)
    numbers = [
        ("records read", f"{stats.rows_read:,}", ""),
        ("rows", f"{kept:,}", ""),
        ("rows that repeat another", f"{stats.duplicates:,}", share(stats.duplicates, kept)),
        ("tokens", f"{total:,}", ""),
        (
            "tokens that are trained",
            f"{stats.trained_tokens:,}",
            share(stats.trained_tokens, total),
        ),
        ("tokens of a row, median", f"{median(lengths):,.0f}", ""),
        ("tokens of a row, mean", f"{mean(lengths):,.0f}", ""),
        ("tokens of a row, 95 of 100 have at most", f"{percentile(lengths, 95):,}", ""),
        ("tokens of a row, longest", f"{max(lengths):,}", ""),
    ]
    sources = [
        (title, f"{rows:,}", f"{tokens:,}", share(tokens, total))
        for title, (rows, tokens) in stats.sources.items()
    ]
    roles = [
        (role, f"{count:,}", share(count, stats.roles.total()))
        for role, count in stats.roles.most_common()
    ]
    turns = [
        (f"{turns}", f"{rows:,}", share(rows, stats.turns.total()))
        for turns, rows in sorted(stats.turns.items())
    ]
    dropped = [
        (reason, f"{rows:,}", share(rows, stats.rows_read))
        for reason, rows in stats.dropped.items()
    ]
    every: list[tuple[str, tuple[str, ...], list[Any]]] = [
        ("RowKind", ("", "", ""), numbers),
        ("Sources", ("", "rows", "tokens", ""), sources),
        ("Who speaks", ("", "messages", ""), roles),
        ("Turns of a user in a row", ("", "rows", ""), turns),
        ("Media", _MEDIA, media.tables(getattr(stats, "media", {}), total)),
        ("Left out", ("", "rows", ""), dropped),
    ]
    return [table for table in every if table[2]]


def percentile(lengths: list[int], share: int) -> int:
    """Percentile of lengths: `share` percent of them are not longer."""
    return sorted(lengths)[-(-len(lengths) * share // 100) - 1]


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
