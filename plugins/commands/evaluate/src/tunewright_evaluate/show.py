"""Results for people: a table and a chart."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.evaluators import EvaluationResult
from tunewright.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["chart", "print_table", "table"]

INK, GRID = "#3b4252", "#e5e9f0"
COLOURS = ("#2f6fb5", "#d9662b", "#3c8c5a", "#8a5aa8", "#b03a48")
_MOST = 60  # parts in a chart


def table(found: Mapping[str, EvaluationResult]) -> str:
    """Table in Markdown: metrics and parts by rows, runs by columns."""
    names = list(found)
    lines = [f"| metric | {' | '.join(map(_escaped, names))} |", f"|---|{'---:|' * len(names)}"]
    for part, metric in _rows(found):
        cells = [_cell(found[name], part, metric) for name in names]
        label = f"{part}: {metric}" if part else metric
        lines.append(f"| {_escaped(label)} | {' | '.join(cells)} |")
    counts = [f"{found[name].rows:,}" for name in names]
    return "\n".join([*lines, f"| examples | {' | '.join(counts)} |"])


def print_table(found: Mapping[str, EvaluationResult]) -> None:
    """Print the table as columns."""
    names = list(found)
    rows = [("metric", *names)]
    for part, metric in _rows(found):
        label = f"{part}: {metric}" if part else metric
        rows.append((label, *(_cell(found[name], part, metric) for name in names)))
    rows.append(("examples", *(f"{found[name].rows:,}" for name in names)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(names) + 1)]
    for row in rows:
        first, *others = (
            text.ljust(width) if not column else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print(printable("  ".join([first, *others])))


def _rows(found: Mapping[str, EvaluationResult]) -> list[tuple[str, str]]:
    """(part, metric) of all results, in order; part "" for the whole."""
    rows: dict[tuple[str, str], None] = {}
    for result in found.values():
        rows |= dict.fromkeys(("", metric) for metric in result.metrics)
    for result in found.values():
        for part, metrics in result.parts.items():
            rows |= dict.fromkeys((part, metric) for metric in metrics)
    return list(rows)


def _cell(result: EvaluationResult, part: str, metric: str) -> str:
    value = (result.parts.get(part, {}) if part else result.metrics).get(metric)
    if value is None:
        return "–"
    margin = None if part else result.margins.get(metric)
    return f"{value:.4g}" + (f" ± {margin:.2g}" if margin is not None else "")


def _escaped(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("\n", " ")


def chart(found: Mapping[str, EvaluationResult], path: Path) -> None:
    """Write bars of the metrics to a PNG file, which is replaced atomically: a panel for each, as
    their units differ, and one of parts by their first metric."""
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(name for each in found.values() for name in each.metrics))
    parts = list(dict.fromkeys(name for each in found.values() for name in each.parts))[:_MOST]
    columns = min(4, max(1, len(metrics)))
    heights = [2.4 * -(-len(metrics) // columns)]
    if parts:
        heights.append(0.3 * len(parts) + 1)
    figure = Figure(figsize=(2.6 * columns, sum(heights)), dpi=120, layout="constrained")
    blocks = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = blocks[0].subplots(-(-len(metrics) // columns), columns, squeeze=False).flat
    for axes, metric in itertools.zip_longest(panels, metrics):
        _metric_bars(axes, metric, found) if metric else axes.set_visible(False)
    if parts:
        _part_bars(blocks[1].subplots(), parts, found)
    beside = path.with_name(f".{path.name}.new")
    figure.savefig(beside, format="png")
    os.replace(beside, path)


def _metric_bars(axes: "Axes", metric: str, found: Mapping[str, EvaluationResult]) -> None:
    """One bar a run."""
    values = [each.metrics.get(metric, 0.0) for each in found.values()]
    margins = [each.margins.get(metric, 0.0) for each in found.values()]
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(values))]
    bars = axes.bar(range(len(values)), values, color=colours, yerr=margins, width=0.6)
    axes.bar_label(bars, [f"{value:.4g}" for value in values], color=INK, fontsize=8)
    names = [_plain(name) for name in found]
    axes.set_xticks(range(len(values)), names, fontsize=7, color=INK)
    axes.set_title(_plain(metric), fontsize=9, color=INK)
    axes.margins(x=0.3, y=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def _part_bars(axes: "Axes", parts: list[str], found: Mapping[str, EvaluationResult]) -> None:
    """One group of bars a part."""
    height = 1 / (len(found) + 1)
    for number, (name, each) in enumerate(found.items()):
        firsts = [next(iter(each.parts.get(part, {}).values()), 0.0) for part in parts]
        places = [place + number * height for place in range(len(parts))]
        colour = COLOURS[number % len(COLOURS)]
        axes.barh(places, firsts, height=height, color=colour, label=_plain(name))
    axes.set_yticks(range(len(parts)), [_plain(part) for part in parts], fontsize=7, color=INK)
    axes.invert_yaxis()
    axes.grid(axis="x", color=GRID)


def _plain(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return printable(text).replace("$", "\\$")
