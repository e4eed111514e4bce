"""Media of examples, as text."""

from pathlib import Path
from typing import Any


def described(medium: Any) -> str:
    """A medium of an example: `image a.png: 640 x 480 pixels, 391 tokens`."""
    size = ", ".join(filter(None, (_pixels(medium.shape), _duration(medium.shape))))
    return f"{medium.kind} {Path(medium.path).name}: {size}, {medium.tokens:,} tokens"


def _pixels(shape: Any) -> str:
    return f"{shape.width:,} x {shape.height:,} pixels" if shape.width else ""


def _duration(shape: Any) -> str:
    if not shape.seconds:
        return ""
    frames = f"{shape.frames:,} frames in " if shape.frames else ""
    return f"{frames}{shape.seconds:.1f} seconds"


def tables(found: dict[str, Any], all_tokens: int) -> list[tuple[str, ...]]:
    """A row for each kind of media: count, rows, tokens, their share, sizes, and seconds in
    all."""
    return [
        (
            kind,
            f"{stats.count:,}",
            f"{stats.rows:,}",
            f"{stats.tokens:,}",
            f"{100 * stats.tokens / all_tokens:.1f} %" if all_tokens else "",
            *_sizes(stats.sizes),
            f"{sum(stats.seconds):,.1f}" if stats.seconds else "",
        )
        for kind, stats in found.items()
    ]


def _sizes(sizes: list[tuple[int, int]]) -> tuple[str, str, str]:
    """The smallest, the median and the largest by pixels."""
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    places = (0, len(ordered) // 2, -1) if ordered else ()
    shown = [f"{ordered[place][0]:,} x {ordered[place][1]:,}" for place in places]
    return (shown[0], shown[1], shown[2]) if shown else ("", "", "")
