"""Metrics as a table."""

import csv
from typing import TYPE_CHECKING, Any

from tunewright import Plugin, PluginOptions, hookimpl
from tunewright.events import Event, Logged

if TYPE_CHECKING:
    from tunewright.types import RunContext


class Csv(Plugin):
    """Writes metrics.csv into the run folder, a line for each report of the trainer, for
    spreadsheets.

    Columns are stage, step and the metrics of the first report; what later ones have besides is
    left out. A resumed run goes on below, so that steps after its checkpoint stand there twice.
    """

    class Options(PluginOptions):
        delimiter: str = ","
        """what stands between two columns"""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._columns: list[str] = []

    @hookimpl
    def report(self, run: "RunContext", event: Event) -> None:
        if not isinstance(event, Logged):
            return
        path = run.folder / "metrics.csv"
        row = {"stage": event.stage, "step": event.step, **event.metrics}
        begun = path.exists()
        if not self._columns:
            self._columns = self._read(path) if begun else list(row)
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(
                file, self._columns, extrasaction="ignore", delimiter=self.options.delimiter
            )
            if not begun:
                writer.writeheader()
            writer.writerow(row)

    def _read(self, path: Any) -> list[str]:
        """The columns of a table that an earlier part of the run began."""
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file, delimiter=self.options.delimiter))
