"""Loss curves, drawn with matplotlib objects and never pyplot: this runs in a thread, without a
display."""

import os
from itertools import accumulate
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tunewright_plot import Curve

INK, GRID, LOSS = "#3b4252", "#e5e9f0", "#2f6fb5"
EVALS = ("#d9662b", "#3c8c5a", "#8a5aa8", "#b03a48")


def draw(curves: list[Curve], path: Path) -> None:
    """Write one panel per curve, side by side, to a PNG file. It is replaced atomically."""
    figure = Figure(
        figsize=(2.5 + 5.5 * len(curves), 4.5), dpi=150, layout="constrained", facecolor="white"
    )
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, curve in zip(panels, curves, strict=True):
        _panel(axes, curve)
    panels[0].set_ylabel("loss (nats per trained token)", color=INK)
    beside = path.with_name(path.name + ".tmp")
    figure.savefig(beside, format="png")
    os.replace(beside, path)


def _panel(axes: Axes, curve: Curve) -> None:
    steps, losses = zip(*curve.points, strict=True)
    few = len(steps) < 20  # smoothing a handful of points is misleading
    if not few:
        axes.plot(steps, losses, color=LOSS, alpha=0.3, linewidth=1)
    axes.plot(
        steps,
        losses if few else smoothed(losses),
        color=LOSS,
        linewidth=2,
        marker="o" if few else None,
        markersize=4,
        label="training" if few else "training, smoothed",
    )
    for index, (name, points) in enumerate(curve.evals.items()):
        if points:
            style = {
                "color": EVALS[index % len(EVALS)],
                "marker": "D",
                "markersize": 5,
                "linewidth": 1.5,
            }
            axes.plot(*zip(*points, strict=True), label=name, **style)
    axes.set_title(
        f"{curve.stage}: loss {losses[-1]:.3g} at step {steps[-1]}",
        color=INK,
        loc="left",
        fontsize=11,
    )
    axes.set_xlabel("step", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.legend(frameon=False, labelcolor=INK)


def smoothed(values: tuple[float, ...]) -> list[float]:
    """Centred moving average over about a twentieth of the values, over fewer towards both ends, so
    that it does not lag."""
    sums = [0.0, *accumulate(values)]
    reach = max(1, len(values) // 40)
    averages = []
    for i in range(len(values)):
        near = min(reach, i, len(values) - 1 - i)
        averages.append((sums[i + near + 1] - sums[i - near]) / (2 * near + 1))
    return averages
