"""Folders of prepared rows that come from elsewhere, or were damaged: one line with the folder,
never wrong rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.prepared_setup import ROWS, changed, prepare, refused, resign, rewrite, trained
from data.running import build, chat_run, made, request, tokenizer, write
from tunewright import RecipeError

__all__ = ["prepare"]


@pytest.mark.parametrize("rows", ROWS)
def test_what_was_prepared_is_trained(prepare: Any, tmp_path: Path, rows: str) -> None:
    prepare(rows)
    assert len(trained(tmp_path, rows).train) == len(ROWS[rows])


def test_rows_that_are_ordered_by_a_column(tmp_path: Path) -> None:
    records = [row | {"n": n} for row, n in zip(ROWS["messages"], (3, 1, 2), strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    asked, by_n = request(tmp_path, "a.jsonl"), {"order": "descending", "order_by": "n"}
    build(chat_run(tmp_path, cache="made", **by_n), asked)
    found = build(chat_run(tmp_path, prepared="made", **by_n), asked)
    assert found.order(0).tolist() == [0, 2, 1]
    assert "order" not in " ".join(found.train.column_names)
    for other in ({"order": "ascending", "order_by": "m"}, {}):
        with pytest.raises(RecipeError, match="was prepared with another order_by"):
            build(chat_run(tmp_path, prepared="made", **other), asked)
    (folder,) = (tmp_path / "made").glob("*/")
    rewrite(folder, changed("order of examples", lambda _: float("nan")))
    with pytest.raises(RecipeError, match="has no number by which to order a row"):
        build(chat_run(tmp_path, prepared="made", **by_n), asked)


VOCABULARY = len(tokenizer())


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("labels", lambda row: [-100] * len(row), "row 3: nothing in it is trained"),
        ("labels", lambda row: [row[0]] + [-100] * (len(row) - 1), "row 3: nothing in it is train"),
        ("labels", lambda row: row[:-1], "row 3: labels and input_ids differ in length"),
        ("labels", lambda row: [*row[:-1], 5 - row[-1]], "row 3: a label is neither"),
        ("labels", lambda row: [*row[:-1], None], "labels has a null"),
        ("labels", lambda row: None, "labels has a null"),
        ("input_ids", lambda row: [*row[:-1], 10**6], r"row 3: input_ids has 1000000, and the tok"),
        ("input_ids", lambda row: [*row[:-1], VOCABULARY], f"ids are 0 to {VOCABULARY - 1}"),
        ("input_ids", lambda row: [-5, *row[1:]], "row 3: input_ids has -5"),
        ("input_ids", lambda row: [], "row 3: input_ids is empty"),
        ("input_ids", lambda row: row * 100, "tokens, and max_length is 200"),
        ("loss_weights", lambda row: [1.0], "row 3: loss_weights and input_ids differ in length"),
        ("loss_weights", lambda row: [float("nan")] * 17, "loss_weights"),
    ],
)
def test_rows_that_preparing_would_not_have_made(
    prepare: Any, tmp_path: Path, column: str, change: Any, says: str
) -> None:
    rewrite(prepare("messages", weight=0.5), changed(column, change))
    assert says in refused(tmp_path)


@pytest.mark.parametrize(
    ("rows", "column", "change", "says"),
    [
        ("preference", "rejected_ids", lambda row: [10**6], "row 2: rejected_ids has 1000000"),
        ("preference", "chosen_ids", lambda row: [], "row 2: chosen_ids is empty"),
        ("preference", "chosen_ids", lambda row: row * 100, "max_length is 200"),
        ("unpaired", "completion_ids", lambda row: [-1], "row 2: completion_ids has -1"),
        ("prompts", "prompt_ids", lambda row: [], "row 2: prompt_ids is empty"),
        ("text", "labels", lambda row: [-100] * len(row), "row 3: nothing in it is trained"),
        ("stepwise", "labels", lambda row: [2] * len(row), "row 2: a label of a step is neither"),
        ("stepwise", "labels", lambda row: [-100] * len(row), "row 2: no step in it has a label"),
    ],
)
def test_every_kind_of_rows_is_checked(
    prepare: Any, tmp_path: Path, rows: str, column: str, change: Any, says: str
) -> None:
    rewrite(prepare(rows), changed(column, change))
    assert says in refused(tmp_path, rows)


@pytest.mark.parametrize(("rows", "column"), [("messages", "labels"), ("prompts", "prompt_ids")])
def test_columns_are_those_of_the_rows(
    prepare: Any, tmp_path: Path, rows: str, column: str
) -> None:
    folder = prepare(rows)
    rewrite(folder, lambda table: table.rename_columns({column: "other"}))
    assert f"has no column {column}" in refused(tmp_path, rows)
    rewrite(
        folder,
        lambda table: table.drop_columns(["other"]).append_column(
            column, pa.array(["x"] * table.num_rows)
        ),
    )
    assert f"column {column} holds string, expected list<" in refused(tmp_path, rows)


def test_offsets_that_lead_out_are_found(prepare: Any, tmp_path: Path) -> None:
    folder = prepare()
    with (folder / "rows.arrow").open("rb") as file:
        table = pa.ipc.open_stream(file).read_all()
    offsets = table["input_ids"].chunk(0).offsets.to_numpy()
    data = (folder / "rows.arrow").read_bytes()
    broken = offsets.copy()
    broken[1:] = 2 * 10**9
    (folder / "rows.arrow").write_bytes(data.replace(offsets.tobytes(), broken.tobytes()))
    resign(folder)
    assert "rows.arrow is not valid Arrow" in refused(tmp_path)
    (folder / "rows.arrow").write_bytes(b"nothing of it")
    resign(folder)
    assert "rows.arrow is not valid Arrow" in refused(tmp_path)


def test_flipped_bytes_are_found(prepare: Any, tmp_path: Path) -> None:
    folder, chance = prepare(), np.random.default_rng(1)
    whole = (folder / "rows.arrow").read_bytes()
    for _ in range(20):
        data = bytearray(whole)
        data[chance.integers(len(data))] ^= 1 << int(chance.integers(8))
        (folder / "rows.arrow").write_bytes(data)
        assert "is not whole" in refused(tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "cut", "manifest", "gone"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: str) -> None:
    name = write(tmp_path / "a.jsonl", "the cat", "the mat")
    run, asked = chat_run(tmp_path, cache="cache"), request(tmp_path, name)
    before = list(build(run, asked).train)
    (rows,) = (tmp_path / "cache").glob("*/rows.arrow")
    data = bytearray(rows.read_bytes())
    if damage == "flipped":
        place = data.index(np.array(before[0]["input_ids"], "<i4").tobytes())
        data[place] ^= 1
        rows.write_bytes(data)
    elif damage == "cut":
        rows.write_bytes(data[:-20])
    elif damage == "manifest":
        rows.with_name("manifest.json").write_text("[]")
    else:
        rows.unlink()
    assert made(run, asked) == 2
    assert list(build(run, asked).train) == before


def test_a_folder_that_is_not_there(prepare: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "a")
    assert "there is no such folder" in refused(tmp_path)
