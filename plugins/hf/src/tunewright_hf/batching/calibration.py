"""Token sequences of a stage's data, for what is computed from a few of them before training."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tunewright.types import Data
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.losses.chunked_cross_entropy import IGNORED

__all__ = ["sequences"]


def sequences(data: Data, count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Return (input_ids, labels) of up to `count` rows, T ints each.

    Rows are drawn with the seed, or the first ones of data that is read while training goes on.
    labels: -100 where a token is not trained. Of a preference it is the chosen reply, of an
    unpaired row the reply if it is desirable. Of rows that are prompts, all tokens are labels; of a
    query with documents they are the query's.
    """
    found = (_sequence(row) for row in _rows(data.train, seed))
    return list(itertools.islice((each for each in found if each is not None), count))


def _rows(rows: Any, seed: int) -> Iterator[dict[str, Any]]:
    if isinstance(rows, RowStream):
        for window in rows.windows(0, 0, {}):
            yield from window.rows
        return
    for number in np.random.default_rng(seed).permutation(len(rows)):
        yield rows[int(number)]


def _sequence(row: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    if "input_ids" in row:
        return list(row["input_ids"]), list(row.get("labels", row["input_ids"]))
    if "query_ids" in row:  # a reranker's rows have pairs in place of documents
        query = list(row["query_ids"] or row["document_ids"][0])
        return query, query
    prompt = list(row["prompt_ids"])
    reply = row["answer_ids"][0] if "answer_ids" in row else None
    reply = row.get("chosen_ids", row.get("completion_ids", reply))
    if reply is None:
        return prompt, prompt
    if not row.get("label", True):
        return None
    return prompt + list(reply), [IGNORED] * len(prompt) + list(reply)
