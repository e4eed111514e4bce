"""A comparison as text."""

from collections.abc import Sequence

from tunewright.terminal import printable
from tunewright_compare.comparison import Comparison, message_text, number

_WIDTH = 40  # characters of a recipe's value


def print_comparison(found: Comparison) -> None:
    """Print tables of metrics and recipes, and predictions."""
    names = [run.name for run in found.runs]
    rows = [
        [
            row.name,
            *(
                number(value, margin) + ("*" if place in row.best else "")
                for place, (value, margin) in enumerate(zip(row.values, row.margins, strict=True))
            ),
        ]
        for row in found.metrics
    ]
    _table(["metric", *names], rows)
    if any(row.best for row in found.metrics):
        print("* the best")
    if found.recipes:
        print()
        _table(
            ["recipe", *names],
            [[name, *(_short(value) for value in values)] for name, values in found.recipes],
        )
    for sample in found.samples:
        asked = message_text(sample.prompt[-1])
        print(printable(f"\n{sample.evaluation}: {asked}"))
        if sample.label is not None:
            print(printable(f"  (data): {message_text(sample.label)}"))
        for name, prediction in zip(names, sample.predictions, strict=True):
            print(printable(f"  {name}: {message_text(prediction)}"))
    for note in found.notes:
        print(printable(f"note: {note}"))


def _table(header: list[str], rows: Sequence[list[str]]) -> None:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        print(printable("  ".join(cells).rstrip()))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
