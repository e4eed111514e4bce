"""From records to rows, with a format plugin: in this process or in a worker."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RowError
from tunewright.types import Origin, Row, RowKind, RowsRequest
from tunewright_dataset_chat import media
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.unread import Unread, refuse

if TYPE_CHECKING:
    from tunewright.registry import PluginCaller
    from tunewright.run import Run


@dataclass(frozen=True)
class Conversion:
    """How the records of a source become rows. Small, and can be sent to another process."""

    format: str  # the plugin's name as it is written
    options: dict[str, Any]
    rows: RowKind
    columns: dict[str, str]
    tags: dict[str, str]
    media_root: Path | None  # None: paths of media are refused
    padded: bool = False  # as in RowsRequest
    on_unread: str = "warn"  # or "error"

    def handle(self, run: "Run") -> "PluginCaller":
        return run.named("format", self.format, **self.options)

    def __call__(
        self, run: "Run", handle: "PluginCaller", items: Iterable[Read], unread: Unread
    ) -> list[Row | RowError]:
        """The rows of some records, and errors in place of those that cannot be used, in order. One
        record may give several rows. unread: where to count what is not read. Raises RecipeError
        where `columns` or `tags` name what the format does not have."""
        found: list[Row | RowError] = []
        tell = refuse if self.on_unread == "error" else unread.count
        records = _records(items, found)
        request = RowsRequest(records, self.rows, self.columns, self.tags, tell, self.padded)
        for row in handle.call("convert_rows", run=run, request=request):
            found.append(row if isinstance(row, RowError) else self._located(row))
        return found

    def _located(self, row: Row) -> Row | RowError:
        try:
            media.locate(row, self.media_root)
        except RowError as error:
            return RowError(error.problem, place=str(row.origin), hint=error.hint)
        return row


def _records(items: Iterable[Read], errors: list[Any]) -> Iterator[tuple[Origin, Any]]:
    for item in items:
        if isinstance(item, RowError):
            errors.append(item)
        else:
            yield item
