"""Metrics as a table."""

import csv
from typing import Any

from tunewright import Plugin, PluginOptions, hookimpl
from tunewright.events import Event, Logged
from tunewright.types import RunContext


class Csv(Plugin):
    """Writes metrics.csv to the run folder, one line per log entry, for spreadsheets.

    Columns are stage, step and the metrics of the first entry; further metrics of later entries are
    left out. A resumed run appends, so steps after its checkpoint appear twice.
    """

    class Options(PluginOptions):
        delimiter: str = ","
        """what stands between two columns"""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._columns: list[str] = []

    @hookimpl
    def report(self, run: RunContext, event: Event) -> None:
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
        """Columns of a table that an earlier part of the run started."""
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file, delimiter=self.options.delimiter))
