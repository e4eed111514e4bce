"""Batches of queries with their documents."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright_hf.batching.collators import Padded, Row


@dataclass
class RetrievalCollator:
    """Batch of all texts of B rows, the queries first: inputs (input_ids, attention_mask), both
    (N, T); queries: their number; fitting: index (B,) of each query's document among the documents;
    texts: a number (N - B,) for each document, equal for equal ones."""

    pad_id: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        documents = [ids for row in rows for ids in row["document_ids"]]
        texts = [*(row["query_ids"] for row in rows), *documents]
        padded = Padded(self.pad_id)([{"input_ids": ids, "labels": ids} for ids in texts])
        counts = torch.tensor([len(row["document_ids"]) for row in rows])
        return {
            "inputs": padded["inputs"],
            "queries": len(rows),
            "fitting": counts.cumsum(0) - counts,
            "texts": torch.tensor([_number(ids) for ids in documents]),
        }


def _number(ids: Sequence[int]) -> int:
    """Number of 53 bits, which floats hold exactly."""
    digest = hashlib.blake2b(str(list(ids)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") >> 3


@dataclass
class Pool:
    """Vectors among which queries find their documents."""

    queries: Tensor  # (Q, E)
    documents: Tensor  # (D, E)
    fitting: Tensor  # (Q,): index of each query's document
    texts: Tensor  # (D,): a number for each document, equal for equal ones

    @classmethod
    def of(cls, vectors: Tensor, batch: dict[str, Any]) -> "Pool":
        """The vectors (N, E) of a batch."""
        count = batch["queries"]
        return cls(vectors[:count], vectors[count:], batch["fitting"], batch["texts"])

    @classmethod
    def joined(cls, pools: Sequence["Pool"]) -> "Pool":
        starts = np.cumsum([0, *(len(pool.documents) for pool in pools)])
        fitting = [pool.fitting + int(n) for pool, n in zip(pools, starts, strict=False)]
        queries, documents, texts = (
            torch.cat([getattr(pool, name) for pool in pools])
            for name in ("queries", "documents", "texts")
        )
        return cls(queries, documents, torch.cat(fitting), texts)

    @property
    def same(self) -> Tensor:
        """(Q, D): documents with the same text as the query's own one."""
        return self.texts[self.fitting][:, None] == self.texts[None]

    def none(self) -> "Pool":
        return Pool(self.queries[:0], self.documents[:0], self.fitting[:0], self.texts[:0])

    def some(self, queries: slice) -> "Pool":
        """The same documents, with fewer queries."""
        return Pool(self.queries[queries], self.documents, self.fitting[queries], self.texts)
