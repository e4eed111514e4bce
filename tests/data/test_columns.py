"""Columns of prepared rows: ids, and those of prompts, which keep their type and lose nothing."""

import json
from array import array
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.running import build, chat_run, request
from tunewright import RowError
from tunewright_dataset_chat import columns
from tunewright_dataset_chat.samples import Sample


def sample(line: int, answer: Any) -> Sample:
    return Sample(f"a.jsonl:{line}", line, {"prompt_ids": [1], "answer": answer})


@given(st.lists(st.lists(st.integers(0, 200_000))))
def test_ids_become_arrow_as_lists_do(rows: list[list[int]]) -> None:
    expected = pa.array(rows, pa.list_(pa.int32()))
    assert columns._ids(rows).equals(expected)
    assert columns._ids([array("i", row) for row in rows]).equals(expected)


def test_columns_of_prompts_keep_their_type() -> None:
    first, errors = columns.record_batch([sample(1, None), sample(2, 3)], "prompts", None)
    assert first and not errors
    assert first.schema.field("answer").type == pa.int64()
    second, errors = columns.record_batch(
        [sample(3, None), sample(4, "three"), sample(5, 4)], "prompts", first.schema
    )
    assert second and second.column("answer").to_pylist() == [None, 4]
    assert [(error.place, error.problem.partition(":")[0]) for error in errors] == [
        ("a.jsonl:4", "column 'answer' changes its type")
    ]


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, {1: 2}, object(), 1 << 70, "\ud800"])
def test_mixed_columns_of_prompts_are_rows_that_cannot_be_used(value: Any) -> None:
    samples = [
        *(sample(line, line) for line in range(1, 9)),
        sample(9, value),
        sample(10, 10),
        sample(11, value),
    ]
    found, errors = columns.record_batch(samples, "prompts", None)
    assert found and found.column("line").to_pylist() == [*range(1, 9), 10]
    assert [error.place for error in errors] == ["a.jsonl:9", "a.jsonl:11"]
    assert columns.record_batch(samples[8:9], "prompts", found.schema)[0] is None


@pytest.mark.parametrize(
    ("first", "later", "says"),
    [({"a": 1}, {"a": 1, "b": 2}, "'b'"), ([{"a": {"c": 1}}], [{"a": {"c": 1, "d": 1}}], "'d'")],
)
def test_no_key_of_an_object_in_a_prompts_column_is_lost(first: Any, later: Any, says: str) -> None:
    made, _ = columns.record_batch([sample(1, first)], "prompts", None)
    assert made
    found, (error,) = columns.record_batch(
        [sample(2, first), sample(3, later)], "prompts", made.schema
    )
    assert found and found.column("answer").to_pylist() == [first]
    assert error.place == "a.jsonl:3" and f"the first records have no {says}" in error.problem


def test_no_column_of_later_prompts_is_lost() -> None:
    made, _ = columns.record_batch([sample(1, 1)], "prompts", None)
    other = sample(2, 2)
    other.columns["more"] = 3
    assert made
    found, (error,) = columns.record_batch([other], "prompts", made.schema)
    assert found is None and "column 'more'" in error.problem and "no such column" in error.problem


def test_a_prompt_with_another_type_ends_the_run_with_its_line(tmp_path: Path) -> None:
    records = [{"prompt": "a", "answer": answer} for answer in (1, 2, "three", 4)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(RowError, match="column 'answer' changes its type") as caught:
        build(chat_run(tmp_path, cache="cache"), request(tmp_path, "a.jsonl", rows="prompts"))
    assert caught.value.place.endswith("a.jsonl:3")
    data = build(
        chat_run(tmp_path, cache="cache", on_bad_row="skip"),
        request(tmp_path, "a.jsonl", rows="prompts"),
    )
    assert (data.train["answer"][:], data.dropped) == ([1, 2, 4], {"cannot be used": 1})
