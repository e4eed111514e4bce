"""Base classes of the kinds that read data: dataset and format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tunewright.errors import RowError
from tunewright.plugin_base import Plugin, PluginOptions
from tunewright.types import DataRequest, Row, RowKind, RunContext

__all__ = ["Dataset", "Format"]


class Dataset(Plugin):
    """Kind dataset: sources to tokenised rows."""

    class Entry(PluginOptions):
        """One source of the recipe's `data`."""

    def eval_sets(self) -> tuple[str, ...]:
        """Names of the evaluation sets that it makes besides those of `eval_data`."""
        return ()

    def first_records(self, entry: Any, root: Path) -> list[Any]:
        """Return the first records of a source, with columns as `entry` renames them.

        Empty where they cannot be read at once, as those of a hub, or at all.
        """
        return []

    def unread(self, run: RunContext, request: DataRequest) -> list[str]:
        """Lines for `recipe check` on what nothing reads in the first records of local sources.

        request.loaded has neither model nor tokenizer.
        """
        return []

    def examples(
        self, run: RunContext, request: DataRequest, kinds: tuple[RowKind, ...]
    ) -> Iterator[Row | RowError]:
        """Rows of request.entries as formats give them, in order, neither rendered nor tokenised.

        A source gives the first of `kinds` that its format has. A record that cannot be used is an
        error in its place. Of the request, loaded, max_length and rows are not read.
        """
        raise NotImplementedError

    def preview(self, run: RunContext, request: DataRequest, count: int) -> Any:
        """Return the first rows as the model will see them, and the lengths of all."""
        raise NotImplementedError

    def stats(self, run: RunContext, request: DataRequest) -> Any:
        """Return counts over all rows."""
        raise NotImplementedError


class Format(Plugin):
    """Kind format: records to rows, with what the dataset must know before it reads."""

    rows: ClassVar[tuple[RowKind, ...]]  #: the kinds of rows it can give

    @staticmethod
    def matches(record: Any) -> bool:
        """Return whether a source's first record looks like this format. False: only by name."""
        return False
