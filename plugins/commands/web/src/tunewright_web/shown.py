"""Numbers, times and sizes as a page shows them: filters of the templates."""

import json
import math
import re
import time
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

__all__ = ["FILTERS"]


def number(value: Any, digits: int = 4) -> str:
    """A number with so many significant digits: 0.0001234, 12.35, 1.2e-9; – where there is
    none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "–"
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (abs(value) < 1e15 and value == int(value)):
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.{digits}g}"


def size(count: Any) -> str:
    """Bytes as 1.5 MB."""
    if not isinstance(count, int | float):
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: Any) -> str:
    """Seconds as 42 s, 3 min 10 s, 5 h 2 min, 2 d 3 h."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def clock(seconds: Any) -> str:
    """A time as 2026-11-30 06:13, in the time zone of the server."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return "–"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def ago(seconds: Any) -> str:
    """How long ago a time was, as a duration."""
    if not isinstance(seconds, int | float):
        return "–"
    return duration(time.time() - seconds)


def as_json(value: Any) -> str:
    """JSON for a data- attribute, which is escaped as any text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def ticks(text: str) -> Markup:
    """Text in which `code` stands in backticks, as descriptions of options have it."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "size": size,
    "duration": duration,
    "clock": clock,
    "ago": ago,
    "json": as_json,
    "ticks": ticks,
}
