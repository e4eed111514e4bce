"""A table of sampled completions, as an HTML page without scripts."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from tunewright.events import Sampled

_HEAD = """<!doctype html>
<meta charset="utf-8">
<title>Samples</title>
<style>
table { border-collapse: collapse; font: 14px sans-serif }
th, td { border: 1px solid #ccc; padding: 4px 8px; text-align: left; vertical-align: top }
td.text { white-space: pre-wrap; font-family: monospace }
</style>
"""


def write(samples: Iterable[Sampled], path: Path) -> None:
    """Write the samples, the newest first, with a column for each reward."""
    rows = list(samples)[::-1]
    names = list(dict.fromkeys(name for each in rows for name in each.rewards))
    heads = ["stage", "step", "prompt", "completion", *names]
    lines = [_HEAD, "<table>", _row(f"<th>{escape(each)}</th>" for each in heads)]
    for each in rows:
        texts = [f'<td class="text">{escape(text)}</td>' for text in (each.prompt, each.completion)]
        numbers = [
            f"<td>{each.rewards[name]:.4g}</td>" if name in each.rewards else "<td></td>"
            for name in names
        ]
        lines.append(
            _row([f"<td>{escape(each.stage)}</td>", f"<td>{each.step}</td>", *texts, *numbers])
        )
    path.write_text("\n".join([*lines, "</table>", ""]), encoding="utf-8")


def _row(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"
