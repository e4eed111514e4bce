"""A comparison as one HTML file: no script, nothing from the network, all text escaped."""

import os
from html import escape
from pathlib import Path

from tunewright import RecipeError, RunError
from tunewright.terminal import printable
from tunewright_compare.chart import COLOURS, chart
from tunewright_compare.comparison import Comparison, message_text, number

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #2e3440; margin: 2rem auto; max-width: 1100px;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
  border-bottom: 1px solid #e5e9f0; }
td.number { font-variant-numeric: tabular-nums; } td.best { font-weight: 700; color: #1d6b3a; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; } svg polyline { fill: none; stroke-width: 1.6; }
svg .grid { stroke: #e5e9f0; } svg text { font: 11px system-ui, sans-serif; fill: #4c566a; }
svg .title { font-weight: 600; font-size: 12px; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: 13px/1.45 ui-monospace,
  monospace; }
.samples td { max-width: 420px; } .note { color: #b03a48; }
@media (prefers-color-scheme: dark) { body { background: #20242c; color: #e5e9f0; }
  th, td { border-color: #3b4252; } svg text { fill: #cbd3e1; } svg .grid { stroke: #3b4252; }
  td.best { color: #7fd19b; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_page(found: Comparison, path: Path, *, overwrite: bool) -> None:
    """Write the file at once, whole. Raises RecipeError if it exists, RunError if it cannot be
    written."""
    if path.exists() and not overwrite:
        raise RecipeError("exists already", place=str(path), hint="--overwrite replaces it")
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(page(found), encoding="utf-8", errors="replace")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunError(f"cannot be written: {error.strerror}", place=str(path)) from error


def page(found: Comparison) -> str:
    """The whole page."""
    names = [run.name for run in found.runs]
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    title = " · ".join(names)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
        *(f'<p class="note">{_text(note)}</p>' for note in found.notes),
        "<h2>Metrics</h2>",
        _metrics(found, colours),
        _curves(found, colours),
        _recipes(found, colours),
        _samples(found, colours),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _text(text: str) -> str:
    return escape(printable(text))


def _head(first: str, colours: dict[str, str]) -> str:
    runs = "".join(
        f'<th><span class="key" style="background:{colour}"></span>{_text(name)}</th>'
        for name, colour in colours.items()
    )
    return f"<tr><th>{_text(first)}</th>{runs}</tr>"


def _metrics(found: Comparison, colours: dict[str, str]) -> str:
    lines = ['<div class="wide"><table>', _head("metric", colours)]
    for row in found.metrics:
        cells = "".join(
            f'<td class="number{" best" if place in row.best else ""}">'
            f"{_text(number(value, margin))}</td>"
            for place, (value, margin) in enumerate(zip(row.values, row.margins, strict=True))
        )
        lines.append(f"<tr><td>{_text(row.name)}</td>{cells}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _curves(found: Comparison, colours: dict[str, str]) -> str:
    titles = dict.fromkeys(title for run in found.runs for title in run.curves)
    drawn = [
        chart(
            printable(title),
            {run.name: run.curves[title] for run in found.runs if title in run.curves},
            colours,
        )
        for title in titles
    ]
    shown = [f"<div>{each}</div>" for each in drawn if each]
    if not shown:
        return ""
    return "\n".join(["<h2>Curves, by step</h2>", '<div class="curves">', *shown, "</div>"])


def _recipes(found: Comparison, colours: dict[str, str]) -> str:
    if not found.recipes:
        return "<h2>Recipes</h2><p>They are the same.</p>"
    lines = ["<h2>Recipes: what differs</h2>", '<div class="wide"><table>', _head("field", colours)]
    for name, values in found.recipes:
        cells = "".join(f"<td><pre>{_text(value)}</pre></td>" for value in values)
        lines.append(f"<tr><td>{_text(name)}</td>{cells}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _samples(found: Comparison, colours: dict[str, str]) -> str:
    if not found.samples:
        return ""
    lines = ["<h2>Predictions</h2>", '<div class="wide"><table class="samples">']
    lines.append(_head("prompt", colours).replace("</th>", "</th><th>data</th>", 1))
    for sample in found.samples:
        turns = "\n".join(f"{turn['role']}: {message_text(turn)}" for turn in sample.prompt)
        label = "" if sample.label is None else message_text(sample.label)
        texts = [turns, label, *map(message_text, sample.predictions)]
        lines.append(f"<tr>{''.join(f'<td><pre>{_text(text)}</pre></td>' for text in texts)}</tr>")
    return "\n".join([*lines, "</table></div>"])
