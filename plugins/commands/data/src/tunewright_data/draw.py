"""Charts of data statistics, with matplotlib objects and never pyplot: no display is needed."""

import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tunewright.words import counted

INK, GRID, BAR, REST = "#3b4252", "#e5e9f0", "#2f6fb5", "#d9662b"
BINS = 40
MOST = 8  # bars per panel; the rest is summed up in one more


def draw(stats: Any, path: Path) -> None:
    """Write panels of lengths, turns, roles and dropped records to a PNG file. It is replaced
    atomically."""
    figure = Figure(figsize=(11, 7), dpi=150, layout="constrained", facecolor="white")
    (lengths, turns), (roles, rest) = figure.subplots(2, 2)
    lengths.hist(stats.lengths, bins=BINS, color=BAR)
    title = (
        f"{counted(len(stats.lengths), 'row')}, {counted(sum(stats.lengths), 'token')}, "
        f"{stats.trained_tokens:,} of them trained"
    )
    _dress(lengths, title, "tokens of a row")
    counts = dict(sorted(stats.turns.items()))
    few = {str(turns): rows for turns, rows in counts.items() if turns <= MOST}
    more = sum(rows for turns, rows in counts.items() if turns > MOST)
    _bars(
        turns, few | ({f"{MOST + 1} or more": more} if more else {}), "rows by turns of a user", BAR
    )
    _bars(roles, dict(stats.roles.most_common(MOST)), "messages by who speaks", BAR)
    left = {"repeat another row": stats.duplicates, **stats.dropped}
    _bars(
        rest,
        dict(list(left.items())[:MOST]),
        f"of {stats.rows_read:,} records: repeated, or left out",
        REST,
    )
    beside = path.with_name(path.name + ".tmp")
    figure.savefig(beside, format="png")
    os.replace(beside, path)


def _bars(axes: Axes, counts: dict[str, int], title: str, colour: str) -> None:
    """Draw one bar per name, the first at the top."""
    bars = axes.barh(range(len(counts)), list(counts.values()), color=colour)
    axes.bar_label(bars, fmt="{:,.0f}", color=INK, padding=3)
    axes.set_yticks(range(len(counts)), list(counts))
    axes.invert_yaxis()
    axes.margins(x=0.15)
    _dress(axes, title)


def _dress(axes: Axes, title: str, below: str = "") -> None:
    axes.set_title(title, color=INK, loc="left", fontsize=11)
    axes.set_xlabel(below, color=INK)
    axes.grid(color=GRID, linewidth=0.8, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
