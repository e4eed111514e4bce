"""Convert samples to Arrow record batches. Separate from `cached_shards`, so that workers do not
import the library that reads the files."""

import bisect
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tunewright import RowError
from tunewright.types import RowKind
from tunewright_dataset_chat.samples import Sample
from tunewright_dataset_chat.unread import listed

# column: position of the record in its file, which identifies the rows of one record; not passed to
# training
LINE = "line"
# column: number of the record by which examples are ordered, if they are; not passed to training
ORDER = "order of examples"

_IDS = pa.list_(pa.int32())
_COLUMNS: dict[RowKind, dict[str, Any]] = {
    "messages": {"input_ids": _IDS, "labels": _IDS, "loss_weights": pa.list_(pa.float32())},
    "text": {"input_ids": _IDS, "labels": _IDS},
    "preference": {
        "prompt_ids": _IDS,
        "chosen_ids": _IDS,
        "rejected_ids": _IDS,
        "margin": pa.float64(),
    },
    "unpaired": {"prompt_ids": _IDS, "completion_ids": _IDS, "label": pa.bool_()},
    "retrieval": {"query_ids": _IDS, "document_ids": pa.list_(_IDS)},
    "labelled": {"input_ids": _IDS, "names": pa.list_(pa.string()), "value": pa.float64()},
    "ranked": {"prompt_ids": _IDS, "answer_ids": pa.list_(_IDS)},
    "stepwise": {"input_ids": _IDS, "labels": _IDS},
    "prompts": {"prompt_ids": _IDS},  # and the columns of the reward functions
}


#: column of the models that take media: kind and path of each, in the order of the text
MEDIA = "media"
MEDIUM = pa.struct([("kind", pa.string()), ("path", pa.string())])


def types(rows: RowKind, media: bool = False) -> dict[str, pa.DataType]:
    """Columns that training reads, for this kind of rows. media: the model takes media."""
    return _COLUMNS[rows] | ({MEDIA: pa.list_(MEDIUM)} if media else {})


def schema(rows: RowKind, media: bool = False, *, ordered: bool = False) -> pa.Schema | None:
    """Schema of this kind of rows; None for prompts, whose columns come from the source. ordered:
    by a column of the records."""
    if rows == "prompts":
        return None
    return pa.schema(own(ordered=ordered) | types(rows, media))


def own(*, ordered: bool) -> dict[str, pa.DataType]:
    """Columns that are not passed to training."""
    return {LINE: pa.int64(), **({ORDER: pa.float64()} if ordered else {})}


def record_batch(
    samples: list[Sample], rows: RowKind, like: pa.Schema | None, media: bool = False
) -> tuple[pa.RecordBatch | None, list[RowError]]:
    """Convert the samples. Returns the batch (None: no row is left), and errors of samples whose
    columns have another type than earlier ones.

    like: the schema of earlier batches; None: the first samples decide.
    """
    left, errors = list(samples), []
    while left:
        try:
            known = like or _first_schema(left, types(rows, media))
            _check_names(left, known)
            columns = [
                _array(left, name, type_)
                for name, type_ in zip(known.names, known.types, strict=True)
            ]
        except _Unfit as unfit:
            errors.append(unfit.error)
            left = [sample for sample in left if sample is not unfit.sample]
        else:
            return pa.record_batch(columns, schema=known), errors
    return None, errors


_MISFITS = (pa.ArrowException, OverflowError, UnicodeError, RecursionError)


class _Unfit(Exception):
    def __init__(self, sample: Sample, column: str, problem: object) -> None:
        hint = "give it one type in all records"
        said = f"changes its type: {' '.join(str(problem).split())[:200]}"
        if isinstance(problem, UnicodeError):
            said, hint = "has half of a surrogate pair, which is no character", "take the half out"
        elif isinstance(problem, RecursionError):
            said, hint = "is nested too deeply", ""
        place = sample.origin
        self.error = RowError(f"column {listed([column])!r} {said}", place=place, hint=hint)
        self.sample = sample


def _first_schema(samples: list[Sample], types: dict[str, pa.DataType]) -> pa.Schema:
    known = own(ordered=samples[0].order is not None) | types
    names = dict.fromkeys(name for sample in samples for name in sample.columns)
    return pa.schema(
        {**known, **{name: _array(samples, name, None).type for name in names if name not in known}}
    )


def _check_names(samples: list[Sample], known: pa.Schema) -> None:
    """Raise _Unfit for a column that would be lost because the first records did not have it."""
    names = set(known.names)
    for sample in samples:
        # documents have no loss_weights
        held = [name for name, value in sample.columns.items() if value is not None]
        if stray := next((name for name in held if name not in names), None):
            raise _Unfit(sample, stray, "the first records have no such column")


def _array(samples: list[Sample], name: str, type_: pa.DataType | None) -> pa.Array:
    """Build a column. Raises _Unfit with the first sample whose type differs from `type_`, or from
    that of earlier samples."""
    own = {LINE: "line", ORDER: "order"}.get(name)
    values: list[Any] = [
        getattr(sample, own) if own else sample.columns.get(name) for sample in samples
    ]
    if type_ == _IDS:
        return _ids(values)
    try:
        if type_ is not None and pa.types.is_nested(type_):
            for sample, value in zip(samples, values, strict=True):
                if key := _lost(value, type_):
                    raise _Unfit(sample, name, f"the first records have no {listed([key])!r} in it")
        return pa.array(values, type_)
    except _MISFITS as error:
        problem = error
    first = bisect.bisect_left(
        range(len(values)), True, key=lambda last: _misfits(values[: last + 1], type_)
    )
    raise _Unfit(samples[first], name, problem)


def _lost(value: Any, type_: pa.DataType) -> str | None:
    """A key of an object, possibly nested, that Arrow would drop silently."""
    if isinstance(value, dict) and pa.types.is_struct(type_):
        fields = {field.name: field.type for field in type_}
        for key, item in value.items():
            if lost := key if key not in fields else _lost(item, fields[key]):
                return lost
        return None
    if isinstance(value, list) and pa.types.is_list(type_):
        return next((lost for item in value if (lost := _lost(item, type_.value_type))), None)
    return None


def _ids(rows: list[Sequence[int]]) -> pa.Array:
    """Like pa.array of lists, without converting numbers to Python objects if the rows are
    arrays."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    flat = np.frombuffer(b"".join(array("i", ids) for ids in rows), np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat))


def _misfits(values: list[Any], type_: pa.DataType | None) -> bool:
    try:
        pa.array(values, type_)
    except _MISFITS:
        return True
    return False
