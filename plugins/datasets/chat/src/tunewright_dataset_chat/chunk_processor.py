"""Process a chunk of records to an Arrow record batch, in the main process or a worker."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tunewright import RowError
from tunewright.types import DataRequest, RunContext
from tunewright_dataset_chat import columns
from tunewright_dataset_chat.convert import Conversion
from tunewright_dataset_chat.numbers import numbered
from tunewright_dataset_chat.offered_tools import offered
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.row_processor import RowProcessor
from tunewright_dataset_chat.samples import Done
from tunewright_dataset_chat.truncate import Policy
from tunewright_dataset_chat.unread import Unread

if TYPE_CHECKING:
    from tunewright.registry import PluginCaller


@dataclass(slots=True)
class ChunkResult:
    """Result of a chunk of records. Can be sent to another process."""

    batch: pa.RecordBatch | None  # None: no row is left
    weighted: bool  # whether a row has loss weights
    errors: list[RowError]  # of records that cannot be used, in order
    dropped: Counter[str]  # reason → rows
    changed: Counter[str]  # how kept rows were changed → rows
    unread: Unread  # of the records


class ChunkProcessor:
    """Prepares rows from records, a chunk at a time."""

    def __init__(
        self, run: RunContext, work: RowProcessor, tools: list[dict[str, Any]] | None = None
    ) -> None:
        self._run, self._work, self._tools = run, work, tools
        self._handle: tuple[Conversion, PluginCaller] | None = None

    @classmethod
    def of(
        cls,
        run: RunContext,
        request: DataRequest,
        policy: Policy,
        work: type[RowProcessor] = RowProcessor,
    ) -> "ChunkProcessor":
        """Create the processor. Raises RecipeError if the tokenizer does not fit the template."""
        loaded = request.loaded
        return cls(
            run,
            work.of(
                run,
                loaded.tokenizer,
                request.rows,
                request.max_length,
                policy,
                loaded.processor,
                request.embedding,
            ),
            request.tools,
        )

    def samples(self, conversion: Conversion | None, items: list[Read]) -> Done:
        """Samples of a chunk. conversion: None if all items are errors. Raises RecipeError."""
        with collected_once():
            if conversion is None:
                return Done(errors=[item for item in items if isinstance(item, RowError)])
            if self._handle is None or self._handle[0] != conversion:
                self._handle = conversion, conversion.handle(self._run)
            unread = Unread()
            numbers: dict[str, float] = {}
            if conversion.order_by is not None:
                items = numbered(items, conversion.order_by, numbers)
            rows = conversion(self._run, self._handle[1], items, unread)
            if self._tools is not None:
                rows = [offered(row, self._tools) for row in rows]
            done = self._work(rows, conversion.media)
            done.unread = unread
            for sample in done.samples if numbers else ():
                sample.order = numbers[sample.origin]
            return done

    def __call__(
        self, conversion: Conversion | None, schema: pa.Schema | None, items: list[Read]
    ) -> ChunkResult:
        """Record batch of a chunk. schema: None takes the columns of these rows, if they are
        prompts. Raises RecipeError."""
        done = self.samples(conversion, items)
        batch, misfits = columns.record_batch(
            done.samples, self._work.rows, schema, self._work.takes_media
        )
        weighted = any(sample.columns.get("loss_weights") for sample in done.samples)
        return ChunkResult(
            batch, weighted, done.errors + misfits, done.dropped, done.changed, done.unread
        )


@contextmanager
def collected_once() -> Iterator[None]:
    """Collect garbage once, at the end, among objects created in between.

    Python's default collects far more often, over the objects of all libraries; without any
    collection, the reference cycles of templates would fill the memory. Chats of 512 tokens take
    404 to 417 µs of CPU each without this, 226 to 255 with it, in the same memory
    (tests/bench/data.py --kind chats --samples 15000). Can be nested: only the outermost re-enables
    the collector.
    """
    _set_aside()
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(1)
        if before:
            gc.enable()


@cache
def _set_aside() -> None:
    """Move all existing objects to the collector's oldest generation, without a collection.

    Once per process: the first collection would scan everything that was imported, which takes 0.3
    s.
    """
    if not gc.get_freeze_count():  # unfreezing would also release what others have frozen
        gc.freeze()
        gc.unfreeze()
