"""Text from data and models, made safe for a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from tunewright.events import Event
    from tunewright.types import Span

# One character for one, so that spans still fit: control characters become visible symbols.
# C0 except tab and newline
_PICTURES = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}
_PICTURES[0x7F] = 0x2421
for _first, _last in ((0x80, 0x9F), (0x202A, 0x202E), (0x2066, 0x2069), (0xD800, 0xDFFF)):
    # C1, text direction overrides, and lone surrogates, which no output encoding supports
    _PICTURES.update(dict.fromkeys(range(_first, _last + 1), 0xFFFD))


def printable(text: str) -> str:
    """The text with control characters, except tab and newline, replaced by visible ones; the
    length is unchanged."""
    return text.translate(_PICTURES)


def told(event: "Event") -> None:
    """Print a notice to standard error; other events are left out. For `on_event` of a command."""
    from tunewright.events import Notice

    if isinstance(event, Notice):
        print(printable(f"({event.message})"), file=sys.stderr)


def show_trained(text: str, trained: "list[Span]", *, colour: bool) -> "Text":
    """A rendered text for rich: trained text green, or in ⟦ ⟧ without colour, the rest dim.

    A loss weight other than 1 is shown after its span.
    """
    from rich.text import Text

    before, after = ("", "") if colour else ("⟦", "⟧")
    shown, done = Text(), 0
    for span in trained:
        shown.append(printable(text[done : span.start]), "dim")
        shown.append(before + printable(text[span.start : span.end]) + after, "black on green")
        if span.weight != 1:
            shown.append(f"(loss weight {span.weight:g})", "bold magenta")
        done = span.end
    shown.append(printable(text[done:]), "dim")
    return shown


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on standard error, where that is a terminal.

    Yields a function that is called with what is done, the number done, and the total.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        tasks = {}

        def update(title: str, done: int, total: int) -> None:
            title = printable(title)
            if title not in tasks:
                tasks[title] = shown.add_task(title, total=total)
            shown.update(tasks[title], completed=done, total=total)

        yield update
