"""Progress in the terminal."""

from typing import TYPE_CHECKING, Any

from tunewright import Plugin, hookimpl
from tunewright.events import Event

if TYPE_CHECKING:
    from tunewright_console.view import View


class Console(Plugin):
    """Shows a run on standard output: a live progress bar in a terminal, plain lines in a pipe or a
    file."""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._view: View | None = None

    @hookimpl
    def report(self, event: Event) -> None:
        if self._view is None:
            from rich.console import Console as Terminal

            from tunewright_console.view import View

            self._view = View(Terminal())
        self._view.show(event)
