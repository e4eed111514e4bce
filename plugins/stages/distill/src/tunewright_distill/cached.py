"""A teacher's likeliest tokens for all rows, kept on disk.

A folder with `teacher.json`, which says what they are of, and files of safetensors for a thousand
rows or so: `rows` (R,) and `counts` (R,), the numbers of rows and of their trained positions; `ids`
(N, K) and `logps` (N, K + 1) of these positions, row by row, the last log-probability that of all
other tokens together.
"""

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from tunewright import RunError
from tunewright_hf.batching.collators import Padded, Row
from tunewright_hf.training.stage_trainer import Batch

MANIFEST = "teacher.json"
ROWS_PER_FILE = 1024


class Writer:
    """Writes the files of one set of rows, on one rank."""

    def __init__(self, folder: Path, name: str, rank: int) -> None:
        self._folder, self._prefix, self._number = folder, f"{name}-{rank}", 0
        self._held: list[tuple[int, Tensor, Tensor]] = []  # row, ids, log-probabilities

    def add(self, row: int, ids: Tensor, logps: Tensor) -> None:
        self._held.append((row, ids.int().cpu(), logps.float().cpu()))
        if len(self._held) == ROWS_PER_FILE:
            self.flush()

    def flush(self) -> None:
        """Write what is held, as a file."""
        if not self._held:
            return
        rows, ids, logps = zip(*self._held, strict=True)
        tensors = {
            "rows": torch.tensor(rows),
            "counts": torch.tensor([len(each) for each in ids]),
            "ids": torch.cat(ids),
            "logps": torch.cat(logps),
        }
        save_file(tensors, self._folder / f"{self._prefix}-{self._number:05}.safetensors")
        self._number, self._held = self._number + 1, []


class Store:
    """Reads the files of one set of rows. Files are opened when a row is asked for, in each process
    of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._places: dict[int, tuple[str, int, int]] = {}  # row → file, first and last position
        self._open: dict[str, Any] = {}
        for path in sorted(folder.glob(f"{name}-*-*.safetensors")):
            with safe_open(path, "pt") as file:
                rows, counts = (file.get_tensor(each).tolist() for each in ("rows", "counts"))
            ends = list(accumulate(counts))
            for row, count, end in zip(rows, counts, ends, strict=True):
                self._places[row] = (path.name, end - count, end)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def missing(self, rows: Sequence[int]) -> int:
        """Number of these rows that it does not have."""
        return len(set(rows) - self._places.keys())

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """(ids, log-probabilities) of a row."""
        name, start, end = self._places[row]
        if name not in self._open:
            self._open[name] = safe_open(self.folder / name, "pt")
        ids, logps = (self._open[name].get_slice(each)[start:end] for each in ("ids", "logps"))
        return ids.long(), logps


class WithTeacher(Dataset[Row]):
    """Rows with the teacher's tokens."""

    def __init__(self, rows: Any, store: Store) -> None:
        self.rows, self.store = rows, store

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Row:
        return {**self.rows[number], "teacher": self.store[number]}


class WithTeacherCollator:
    """Padded batch with the teacher's tokens: `teacher_ids` (N, K) and `teacher_logps`
    (N, K + 1)."""

    def __init__(self, padded: Padded, count: int) -> None:
        self._padded, self._count = padded, count

    def __call__(self, rows: Sequence[Row]) -> Batch:
        ids, logps = zip(*(row["teacher"] for row in rows), strict=True)
        if not any(map(len, ids)):  # the loss keeps one position, with weight 0
            ids, logps = (torch.arange(self._count)[None],), (torch.zeros(1, self._count + 1),)
        return self._padded(rows) | {
            "teacher_ids": torch.cat(ids),
            "teacher_logps": torch.cat(logps),
        }


def read_identity(folder: Path) -> dict[str, Any] | None:
    """Manifest of a folder; None if there is none. Raises RunError if it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise RunError(f"is damaged: {error}", place=str(path)) from error
    return found if isinstance(found, dict) else None
