"""Folders written by `tunewright data prepare --to`. They may come from others, so manifest,
columns and every row are checked."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from tunewright import RecipeError, RowError
from tunewright.types import DataRequest
from tunewright_dataset_chat import cached_shards, columns
from tunewright_dataset_chat.cached_shards import CachedShard
from tunewright_dataset_chat.columns import MEDIA, ORDER
from tunewright_dataset_chat.media import KINDS, Folders, check_written
from tunewright_dataset_chat.samples import IGNORED

MANIFEST = cached_shards.MANIFEST
_AGAIN = "prepare it anew: tunewright data prepare RECIPE --to FOLDER"
#: lists of lists of ids: documents of a query, answers to a prompt
NESTED = ("document_ids", "answer_ids")
_ANSWERS = ("chosen_ids", "rejected_ids", "completion_ids")


def find(folder: Path, shared: dict[str, Any], written: str, place: str) -> list[CachedShard]:
    """Find the rows of one source in the folder, in the parts that it was prepared in. written:
    digest of its entry; shared: settings that the rows must have been prepared with. Raises
    RecipeError if they do not fit, are damaged, or a part is missing."""
    at = f"dataset.prepared: {folder}"
    if not folder.is_dir():
        raise RecipeError("there is no such folder", place=at, hint=_AGAIN)
    every = [_read(path.parent, at) for path in sorted(folder.glob(f"[!.]*/{MANIFEST}"))]
    same = [part for part in every if part.facts["entry"].partition(" ")[0] == written]
    fitting = [part for part in same if part.facts["settings"] == shared]
    parts = sorted(fitting, key=_number)
    numbers, of = [_number(part) for part in parts], _number(parts[-1])[1] if parts else 0
    if parts and numbers == [(number + 1, of) for number in range(of)]:
        return parts
    if parts and len(set(numbers)) == len(numbers) and {each[1] for each in numbers} == {of}:
        away = min({(number + 1, of) for number in range(of)} - set(numbers))
        problem = f"holds {len(parts)} of {of} parts of {place}, not number {away[0]}"
        hint = "copy the folders of all hosts that ran tunewright data prepare --shard into one"
        raise RecipeError(problem, place=at, hint=hint)
    if fitting:  # a copied folder does not tell which is the latest
        problem = (
            f"holds {len(fitting)} versions of {place}, since its source or the code "
            "changed in between"
        )
        raise RecipeError(problem, place=at, hint=f"delete the folder, and {_AGAIN}")
    if not same:
        raise RecipeError(f"holds no rows of {place}", place=at, hint=_AGAIN)
    stored = same[0].facts["settings"]
    differing = [name for name in {**shared, **stored} if stored.get(name) != shared.get(name)]
    raise RecipeError(f"was prepared with another {', '.join(differing)}", place=at, hint=_AGAIN)


def _number(part: CachedShard) -> tuple[int, int]:
    """Number of a part, from 1 on, and of parts."""
    number, _, of = (part.facts["entry"].partition(" ")[2] or "1/1").partition("/")
    return (int(number), int(of)) if (number + of).isdecimal() else (0, 0)


def _read(folder: Path, at: str) -> CachedShard:
    if (found := cached_shards.read(folder)) is None:
        problem = f"{folder.name} is not whole, or was written by another version"
        raise RecipeError(problem, place=at, hint=_AGAIN)
    return found


def check(
    part: CachedShard, request: DataRequest, folder: Path, *, ordered: bool = False
) -> CachedShard:
    """Return the shard. ordered: by a column. Raises RecipeError for the first row that preparation
    would not have produced."""
    try:
        table = part.table().table
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        _refuse(folder, f"{cached_shards.ROWS} is not valid Arrow: {said}")
    if table.num_rows != part.rows:
        _refuse(folder, f"has {table.num_rows} rows, and its manifest says {part.rows}")
    _check_columns(table.schema, request, folder, ordered)
    if ordered and not np.isfinite(table.column(ORDER).to_numpy()).all():
        _refuse(folder, "has no number by which to order a row")
    first = 0
    files: set[tuple[str, str]] = set()  # that were looked for
    vocabulary = _vocabulary(request.loaded.tokenizer)
    for batch in table.to_batches():
        if batch.num_rows:
            found = _bad_row(_Batch(batch, vocabulary), request) or _bad_media(
                batch, part.media, files
            )
            if found:
                _refuse(folder, f"row {first + found[0] + 1}: {found[1]}")
        first += batch.num_rows
    return part


def _refuse(folder: Path, problem: str) -> NoReturn:
    raise RecipeError(problem, place=f"dataset.prepared: {folder}", hint=_AGAIN)


def _vocabulary(tokenizer: Any) -> int:
    """Largest id + 1."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0))


def _check_columns(schema: pa.Schema, request: DataRequest, folder: Path, ordered: bool) -> None:
    media = request.loaded.processor is not None
    known = pa.schema(columns.own(ordered=ordered) | columns.types(request.rows, media))
    for name, type_ in zip(known.names, known.types, strict=True):
        if name not in schema.names:
            _refuse(folder, f"has no column {name}")
        if schema.field(name).type != type_:
            _refuse(folder, f"column {name} holds {schema.field(name).type}, expected {type_}")


class _Batch:
    """Lists of a record batch as flat arrays. vocabulary: exclusive upper bound of ids."""

    def __init__(self, batch: pa.RecordBatch, vocabulary: int) -> None:
        self.names = batch.schema.names
        self.vocabulary = vocabulary
        self._batch = batch

    def column(self, name: str) -> Any:
        return self._batch.column(name)

    def lengths(self, name: str) -> np.ndarray:
        """(rows,) tokens of each row; 0 for null."""
        return np.diff(self.column(name).offsets.to_numpy())

    def values(self, name: str) -> np.ndarray:
        """(tokens,) of all rows."""
        return self.column(name).flatten().to_numpy(zero_copy_only=False)

    def row_of(self, name: str, at_fault: np.ndarray) -> int:
        """Row of the first value that is marked."""
        ends = np.cumsum(self.lengths(name))
        return int(np.searchsorted(ends, np.flatnonzero(at_fault)[0], side="right"))


def _bad_row(batch: _Batch, request: DataRequest) -> tuple[int, str] | None:
    """First invalid row and the problem."""
    id_columns = [
        name for name in columns.types(request.rows) if name.endswith("_ids") and name not in NESTED
    ]
    lists = [name for name in columns.types(request.rows) if name in (*id_columns, "labels")]
    for name in lists:
        if batch.column(name).null_count or batch.column(name).flatten().null_count:
            return 0, f"{name} has a null"
    for name in id_columns:
        ids, lengths = batch.values(name), batch.lengths(name)
        if (bad := (ids < 0) | (ids >= batch.vocabulary)).any():
            at = int(np.flatnonzero(bad)[0])
            problem = f"{name} has {ids[at]}, and the tokenizer's ids are 0 to"
            return batch.row_of(name, bad), f"{problem} {batch.vocabulary - 1}"
        # a reranker's rows have no query of their own
        may_be_empty = name == "query_ids" and request.embedding.pair_prompt
        if (lengths == 0).any() and not may_be_empty:
            return int(np.flatnonzero(lengths == 0)[0]), f"{name} is empty"
    total = batch.lengths(id_columns[0])
    answers = [batch.lengths(name) for name in _ANSWERS if name in id_columns]
    if answers:
        total = total + np.maximum.reduce(answers)
    if (long := total > request.max_length).any():
        row = int(np.flatnonzero(long)[0])
        return row, f"has {total[row]} tokens, and max_length is {request.max_length}"
    for name in set(NESTED) & set(batch.names):
        prompts = total if name == "answer_ids" else np.zeros_like(total)
        return _bad_lists(batch, name, request.max_length - prompts)
    if request.rows == "stepwise":
        return _bad_steps(batch)
    return _bad_labels(batch) if "labels" in batch.names else None


def _bad_lists(batch: _Batch, name: str, longest: np.ndarray) -> tuple[int, str] | None:
    """longest: tokens (rows,) that each of a row's lists may have."""
    rows = batch.column(name)
    lists = rows.flatten()
    values = lists.flatten()
    if rows.null_count or lists.null_count or values.null_count:
        return 0, f"{name} has a null"
    counts = batch.lengths(name)
    if (counts == 0).any():
        return int(np.flatnonzero(counts == 0)[0]), f"{name} is empty"
    lengths, limits = np.diff(lists.offsets.to_numpy()), np.repeat(longest, counts)
    if (bad := (lengths == 0) | (lengths > limits)).any():
        at = int(np.flatnonzero(bad)[0])
        problem = f"{name} has one of {lengths[at]} tokens, expected 1 to {limits[at]}"
        return batch.row_of(name, bad), problem
    ids = values.to_numpy(zero_copy_only=False)
    if (bad := (ids < 0) | (ids >= batch.vocabulary)).any():
        row = batch.row_of(name, np.add.reduceat(bad, np.cumsum(lengths) - lengths) > 0)
        problem = f"{name} has {ids[bad][0]}, and the tokenizer's ids are 0 to"
        return row, f"{problem} {batch.vocabulary - 1}"
    return None


def _bad_steps(batch: _Batch) -> tuple[int, str] | None:
    lengths = batch.lengths("input_ids")
    if (bad := batch.lengths("labels") != lengths).any():
        return int(np.flatnonzero(bad)[0]), "labels and input_ids differ in length"
    labels = batch.values("labels")
    if (bad := ~np.isin(labels, (IGNORED, 0, 1))).any():
        return batch.row_of("labels", bad), "a label of a step is neither 0, 1 nor -100"
    starts = np.cumsum(lengths) - lengths
    if (bad := np.add.reduceat(labels != IGNORED, starts) == 0).any():
        return int(np.flatnonzero(bad)[0]), "no step in it has a label"
    return None


def _bad_labels(batch: _Batch) -> tuple[int, str] | None:
    lengths = batch.lengths("input_ids")
    if (bad := batch.lengths("labels") != lengths).any():
        return int(np.flatnonzero(bad)[0]), "labels and input_ids differ in length"
    ids, labels = batch.values("input_ids"), batch.values("labels")
    trained = labels != IGNORED
    if (bad := trained & (labels != ids)).any():
        return batch.row_of("labels", bad), "a label is neither its token's id nor -100"
    starts = np.cumsum(lengths) - lengths
    trained[starts] = False  # the first token is never predicted
    if (bad := np.add.reduceat(trained, starts) == 0).any():
        return int(np.flatnonzero(bad)[0]), "nothing in it is trained: all labels are -100"
    if "loss_weights" in batch.names:
        weights = batch.column("loss_weights")
        have = ~weights.is_null().to_numpy(zero_copy_only=False)
        if (bad := have & (batch.lengths("loss_weights") != lengths)).any():
            return int(np.flatnonzero(bad)[0]), "loss_weights and input_ids differ in length"
        values = weights.flatten()
        if values.null_count or not np.isfinite(values.to_numpy(zero_copy_only=False)).all():
            return 0, "loss_weights has what is no number"
    return None


def _bad_media(
    batch: pa.RecordBatch, folders: Folders, known: set[tuple[str, str]]
) -> tuple[int, str] | None:
    """First row with a medium that is not a file of its folders, and the problem."""
    if MEDIA not in batch.schema.names:
        return None
    for row, media in enumerate(batch.column(MEDIA).to_pylist()):
        for medium in media if media is not None else [{"kind": None, "path": None}]:
            kind, path = medium["kind"], medium["path"]
            if kind not in KINDS or not isinstance(path, str):
                return row, "media has what is no medium"
            if (kind, path) not in known:
                try:
                    check_written(kind, path, folders)
                except RowError as error:
                    return row, error.problem
                known.add((kind, path))
    return None
