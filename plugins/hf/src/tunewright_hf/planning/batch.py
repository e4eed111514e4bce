"""The largest batch of a stage: what its data, or its recipe alone, allows."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import datasets
import numpy as np

from tunewright.types import Data, RowKind
from tunewright_hf.batching.batch_sampler import Batches, row_lengths

__all__ = ["Workload", "training_on", "workload_of_data", "workload_of_recipe"]

_MOST_BATCHES = 100_000  # of an epoch that are looked at
_TOKEN = 2  # of rows that are made up: any id


@dataclass(frozen=True)
class Workload:
    """Largest batch of a stage, and how much there is to train on."""

    rows: Any  # datasets.Dataset with the rows of the largest batch
    tokens: int  # of that batch, padding included
    total_tokens: int | None = None  # of the whole training, padding included; None: not known
    steps: int | None = None  # optimizer steps of the whole training
    typical: Any = None  # datasets.Dataset with the rows of a batch of mean size

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return row_lengths(self.rows).tolist()  # type: ignore[no-any-return]


def workload_of_recipe(
    kind: RowKind, training: Any, packing: bool, size: tuple[int, int] | None = None
) -> Workload:
    """The largest batch that the recipe allows: rows of max_length tokens. size: rows and tokens
    of each in place of the recipe's. kind: of prompts, the tokens are those of prompts."""
    length = training.max_length
    count = training.per_device_train_batch_size
    if training.tokens_per_batch:
        count, length = max(1, training.tokens_per_batch // length), length
        if packing:
            count, length = 1, training.tokens_per_batch
    if size is not None:
        count, length = size
    rows = datasets.Dataset.from_list([_row(kind, length, number) for number in range(count)])
    return Workload(rows, int(row_lengths(rows).sum()))


def _row(kind: RowKind, length: int, number: int) -> dict[str, Any]:
    ids, half = [_TOKEN] * length, length // 2
    if kind in ("text", "messages"):
        return {"input_ids": ids, "labels": ids}
    if kind == "prompts":
        return {"prompt_ids": ids}
    if kind == "preference":
        return {
            "prompt_ids": ids[:half],
            "chosen_ids": ids[half:],
            "rejected_ids": ids[half:],
        }
    if kind == "labelled":
        return {"input_ids": ids, "names": [], "value": 0.0}
    if kind == "ranked":
        return {"prompt_ids": ids[:half], "answer_ids": [ids[half:]] * 2}
    if kind == "stepwise":
        return {"input_ids": ids, "labels": [-100] * (length - 1) + [1]}
    if kind == "retrieval":  # the query and one document: both count
        return {"query_ids": ids[:half], "document_ids": [ids[:half]]}
    return {"prompt_ids": ids[:half], "completion_ids": ids[half:], "label": number % 2 == 0}


def workload_of_data(data: Data, training: Any, packing: bool, ranks: int = 1) -> Workload:
    """The largest batch of the data, and how much there is of it over all ranks. Raises RunError
    without rows."""
    lengths = row_lengths(data.train)
    facts: dict[str, Any] = {"packing": packing, "order": data.order, "world_size": ranks}
    batches = Batches(lengths, training, **facts)
    sizes = np.asarray(lengths)

    def padded(batch: Iterable[int]) -> int:
        tokens = sizes[list(batch)]
        return int(tokens.sum() if packing else tokens.max() * len(tokens))

    looked = list(islice(batches, _MOST_BATCHES))
    counts = [padded(batch) for batch in looked]
    largest = looked[int(np.argmax(counts))]
    mean = looked[int(np.argmin(np.abs(np.asarray(counts) - np.mean(counts))))]
    total = round(float(np.mean(counts)) * len(batches) * ranks)
    rows, typical = data.train.select(largest), data.train.select(mean)
    return Workload(rows, max(counts), total, batches.steps, typical)


def training_on(workload: Workload, training: Any) -> Any:
    """The recipe's training with the workload's rows as its only batch."""
    changes = {
        "per_device_train_batch_size": len(workload.rows),
        "batching": "random",
        "tokens_per_batch": None,
        "max_steps": 2,
    }
    return training.model_copy(update=changes)
