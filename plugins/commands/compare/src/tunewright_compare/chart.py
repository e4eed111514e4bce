"""Curves as SVG. All text is escaped."""

import math
from collections.abc import Mapping
from html import escape

COLOURS = ("#2f6fb5", "#d9662b", "#3c8c5a", "#8a5aa8", "#b03a48", "#7a6a3a", "#3a8c8c", "#666")
_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 26, 28
_POINTS = 600  # of a curve; more are thinned


def chart(title: str, curves: Mapping[str, Mapping[int, float]], colours: Mapping[str, str]) -> str:
    """A line chart. curves: name of the run → step → value. Empty where there is no value."""
    points = {name: _finite(curve) for name, curve in curves.items()}
    points = {name: each for name, each in points.items() if each}
    if not points:
        return ""
    steps = [step for each in points.values() for step, _ in each]
    values = [value for each in points.values() for _, value in each]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def x(step: float) -> float:
        return _LEFT + (step - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    lines = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="{_LEFT}" y="16" class="title">{escape(title)}</text>',
    ]
    for tick in _ticks(low, high):
        lines.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
            f'class="grid"/><text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" class="tick" '
            f'text-anchor="end">{tick:.4g}</text>'
        )
    for step in (first, last):
        lines.append(
            f'<text x="{x(step):.1f}" y="{_HEIGHT - 8}" class="tick" '
            f'text-anchor="{"start" if step == first else "end"}">{step}</text>'
        )
    for name, each in points.items():
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in each)
        colour = colours[name]
        lines.append(f'<polyline points="{path}" stroke="{colour}"><title>{escape(name)}</title>')
        lines.append("</polyline>")
        step, value = each[-1]
        lines.append(f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}"/>')
    return "\n".join([*lines, "</svg>"])


def _finite(curve: Mapping[int, float]) -> list[tuple[int, float]]:
    """Points in order, thinned; the last stays."""
    found = [(step, value) for step, value in sorted(curve.items()) if math.isfinite(value)]
    every = -(-len(found) // _POINTS) or 1
    return found[::every] + (found[-1:] if found and (len(found) - 1) % every else [])


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between two."""
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    start = math.ceil(low / step)
    return [number * step for number in range(start, math.floor(high / step) + 1)]
