"""Lengths of rows with a query and documents, or with a prompt and answers."""

from typing import Any

import numpy as np


def list_lengths(dataset: Any, one: str, several: str) -> np.ndarray:
    """Tokens (rows,) that each row contributes to a batch. A query and documents are texts of
    their own, each padded to the longest; answers stand after the prompt, all as the longest."""
    found, rows = [], dataset.select_columns([one, several])
    for table in rows.with_format("arrow").iter(10_000):
        first = np.diff(table[one].combine_chunks().offsets.to_numpy())
        lists = table[several].combine_chunks()
        counts, each = (np.diff(x.offsets.to_numpy()) for x in (lists, lists.flatten()))
        longest = np.maximum.reduceat(each, np.cumsum(counts) - counts)  # a row has at least one
        if one == "prompt_ids":
            found.append(counts * (first + longest))
        else:  # a reranker's rows have no query of their own
            found.append((counts + (first > 0)) * np.maximum(first, longest))
    return np.concatenate(found).astype(np.int32) if found else np.zeros(0, dtype=np.int32)
