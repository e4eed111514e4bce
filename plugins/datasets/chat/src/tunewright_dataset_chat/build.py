"""The tables that training reads, and the samples that `data preview` shows."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa

from tunewright import RunError
from tunewright.types import Data, DataRequest
from tunewright_dataset_chat import fingerprint
from tunewright_dataset_chat.prepare import BATCH, IGNORED, Preparation, Sample
from tunewright_dataset_chat.source import open_sources

if TYPE_CHECKING:
    from tunewright.run import Run

_COLUMNS = {"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32()), "loss_weights": pa.list_(pa.float32())}


@dataclass
class Preview:
    samples: list[Sample]
    lengths: list[int]  # tokens of every row that is kept
    trained_tokens: int  # of all these rows
    rows_read: int
    dropped: dict[str, int]  # reason → rows
    notes: list[str]


def build(run: "Run", request: DataRequest, options: Any) -> Data:
    """The tokenised rows of the recipe's `data` and `eval_data`; rows_read and dropped count both.

    Raises RecipeError and RowError; RunError where no row is left.
    """
    work = Preparation(run, request, options)
    groups = {"data": request.entries} | {f"eval_data.{n}": e for n, e in request.eval_entries.items()}
    opened = {place: open_sources(entries, place, request.root) for place, entries in groups.items()}
    tables = {place: _table(work.samples(sources), place, work) for place, sources in opened.items()}
    work.close()
    key = fingerprint.of(run, request, options, [source for sources in opened.values() for source in sources])
    train, *evals = (_dataset(table, f"{key} {place}") for place, table in tables.items())
    names = dict(zip(request.eval_entries, evals, strict=True))
    return Data(train, names, work.read, dict(work.dropped), work.notes, key)


def preview(run: "Run", request: DataRequest, count: int) -> Preview:
    """The first `count` rows of `data` as the model will see them, and the lengths of all.

    Raises RecipeError and RowError.
    """
    work = Preparation(run, request, run.plugin("dataset").options)
    samples: list[Sample] = []
    lengths: list[int] = []
    trained = 0
    for sample in work.samples(open_sources(request.entries, "data", request.root)):
        lengths.append(len(sample.input_ids))
        trained += sum(label != IGNORED for label in sample.labels)
        if len(samples) < count:
            samples.append(sample)
    work.close()
    return Preview(samples, lengths, trained, work.read, dict(work.dropped), work.notes)


def _table(samples: Iterator[Sample], place: str, work: Preparation) -> pa.Table:
    """The rows in memory: input_ids, labels and, if any row has them, loss_weights (null where all are 1)."""
    batches: list[pa.RecordBatch] = []
    weighted = False
    while batch := list(itertools.islice(samples, BATCH)):
        weighted = weighted or any(sample.loss_weights for sample in batch)
        columns = [
            [sample.input_ids for sample in batch],
            [sample.labels for sample in batch],
            [sample.loss_weights for sample in batch],
        ]
        arrays = [pa.array(column, kind) for column, kind in zip(columns, _COLUMNS.values(), strict=True)]
        batches.append(pa.record_batch(arrays, names=list(_COLUMNS)))
    if not batches:
        reasons = ", ".join(f"{count} {reason}" for reason, count in work.dropped.items())
        raise RunError(f"no row is left of {work.read}: {reasons}", place=place)
    table = pa.Table.from_batches(batches)
    return table if weighted else table.drop_columns("loss_weights")


def _dataset(table: pa.Table, key: str) -> datasets.Dataset:
    # with a fingerprint of ours the library makes none, for which it would pickle the table
    return datasets.Dataset(table, fingerprint=hashlib.sha256(key.encode()).hexdigest())
