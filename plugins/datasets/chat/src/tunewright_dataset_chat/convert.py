"""Convert records to rows with a format plugin, in the main process or a worker."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright import RowError
from tunewright.types import Origin, Row, RowKind, RowsRequest, RunContext
from tunewright_dataset_chat import media
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.unread import Tell, Unread, refuse, without

if TYPE_CHECKING:
    from tunewright.registry import PluginCaller


@dataclass(frozen=True)
class Conversion:
    """Settings for converting the records of a source. Small, and can be sent to another
    process."""

    format: str  # name of the plugin, as written in the recipe
    options: dict[str, Any]
    rows: RowKind
    columns: dict[str, str]
    tags: dict[str, str]
    media: media.Folders
    padded: bool = False  # see RowsRequest
    on_unread: str = "warn"  # or "error"
    order_by: str | None = None  # column by which examples are ordered, which is read in any case

    def handle(self, run: RunContext) -> "PluginCaller":
        return run.named("format", self.format, **self.options)

    def __call__(
        self, run: RunContext, handle: "PluginCaller", items: Iterable[Read], unread: Unread
    ) -> list[Row | RowError]:
        """Convert records. Returns rows, and errors in place of unusable records, in order; a
        record may give several rows. unread: counts names that are not read. Raises RecipeError if
        `columns` or `tags` name something that the format does not have."""
        found: list[Row | RowError] = []
        tell: Tell = refuse if self.on_unread == "error" else unread.count
        if self.order_by is not None:
            tell = without(self.order_by, tell)
        records = _records(items, found)
        request = RowsRequest(records, self.rows, self.columns, self.tags, tell, self.padded)
        for row in handle.call("convert_rows", run=run, request=request):
            found.append(row if isinstance(row, RowError) else self._located(row))
        return found

    def _located(self, row: Row) -> Row | RowError:
        try:
            media.locate(row, self.media)
        except RowError as error:
            return RowError(error.problem, place=str(row.origin), hint=error.hint)
        return row


def _records(items: Iterable[Read], errors: list[Any]) -> Iterator[tuple[Origin, Any]]:
    for item in items:
        if isinstance(item, RowError):
            errors.append(item)
        else:
            yield item
