"""Folders of prepared rows that come from elsewhere, or were damaged: one line with the folder,
never wrong rows."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.running import build, chat_run, made, request, tokenizer, write
from tunewright import RecipeError
from tunewright.errors import TunewrightError

ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]}
        for text in ("b", "the cat", "the mat")
    ],
    "text": [{"text": text} for text in ("b", "the cat", "the mat")],
    "preference": [{"prompt": "a", "chosen": text, "rejected": "c"} for text in ("b", "the cat")],
    "unpaired": [{"prompt": "a", "completion": text, "label": True} for text in ("b", "the cat")],
    "prompts": [{"prompt": text, "answer": text} for text in ("b", "the cat")],
    "stepwise": [
        {"prompt": "a", "completions": [text, "c"], "labels": [1, 0]} for text in ("b", "the cat")
    ],
}


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Path]:
    """Prepares rows of a kind in tmp_path/made, and returns the one folder in it."""

    def prepared(rows: Any = "messages", weight: float | None = None) -> Path:
        records = ROWS[rows]
        if weight is not None:
            records = json.loads(json.dumps(records))
            records[0]["messages"][1]["weight"] = weight
        text = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "a.jsonl").write_text(text)
        build(chat_run(tmp_path, cache="made"), request(tmp_path, "a.jsonl", rows=rows))
        (folder,) = (tmp_path / "made").glob("*/")
        return folder

    return prepared


def trained(root: Path, rows: Any = "messages", **changes: Any) -> Any:
    return build(chat_run(root, prepared="made"), request(root, "a.jsonl", rows=rows, **changes))


def refused(root: Path, rows: Any = "messages") -> str:
    with pytest.raises(RecipeError) as caught:
        trained(root, rows)
    assert caught.value.place == f"dataset.prepared: {root / 'made'}"
    assert "prepare it anew: tunewright data prepare" in caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value.problem


def rewrite(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows, as somebody would who knows the manifest."""
    with (folder / "rows.arrow").open("rb") as file:
        table = change(pa.ipc.open_stream(file).read_all())
    with pa.ipc.new_stream(folder / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    resign(folder, rows=table.num_rows)


def resign(folder: Path, **facts: Any) -> None:
    data = (folder / "rows.arrow").read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **facts}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def changed(
    column: str, change: Callable[[list[Any]], list[Any]]
) -> Callable[[pa.Table], pa.Table]:
    """A change of the last row's value in a column."""

    def apply(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[-1] = change(values[-1])
        place, type_ = table.schema.names.index(column), table.schema.field(column).type
        return table.set_column(place, column, pa.array(values, type_))

    return apply


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


MANIFESTS: dict[str, Any] = {
    "list": [],
    "text": "x",
    "no tally": {"tally": None},
    "empty tally": {"tally": {}},
    "tally of texts": {"tally": {"records": "3"}},
    "notes": {"tally": {"records": 1, "dropped": {}, "changed": {}, "bad": [], "notes": [5]}},
    "settings": {"settings": 5},
    "rows": {"rows": "3"},
    "bytes": {"bytes": 5},
    "weighted": {"weighted": "no"},
    "sha256": {"sha256": "0" * 64},
    "entry": {"entry": None},
    "format": {"format": 1},
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_none(prepare: Any, tmp_path: Path, name: str) -> None:
    folder, value = prepare(), MANIFESTS[name]
    file = folder / "manifest.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | value if isinstance(value, dict) else value))
    assert f"{folder.name} is not whole, or was written by another version" in refused(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["records", "notes", "dropped", "rows", "x"]), inner)
    ),
    max_leaves=8,
)
FIELDS = ["format", "rows", "bytes", "identity", "entry", "settings", "tally", "weighted"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    field=st.sampled_from(FIELDS),
    inner=st.none() | st.sampled_from(["records", "notes", "bad"]),
    value=JSON,
)
def test_no_manifest_is_a_crash(
    prepare: Any, tmp_path: Path, field: str, inner: str | None, value: Any
) -> None:
    folder = next(iter((tmp_path / "made").glob("*/")), None) or prepare()
    manifest = json.loads((folder / "manifest.json").read_text())
    changed_one = json.loads(json.dumps(manifest))
    if inner:
        changed_one["tally"][inner] = value
    else:
        changed_one[field] = value
    (folder / "manifest.json").write_text(json.dumps(changed_one))
    said = ""
    try:
        trained(tmp_path)
    except TunewrightError as error:
        said = str(error)
    finally:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "\n" not in said


def test_a_manifest_that_is_deep_or_no_json(prepare: Any, tmp_path: Path) -> None:
    for text in ("[" * 100_000, "", "{", "\udcff"):
        folder = prepare()
        (folder / "manifest.json").write_text(text, errors="surrogateescape")
        assert "is not whole" in refused(tmp_path)
        shutil.rmtree(tmp_path / "made")


def test_rows_that_the_manifest_does_not_count(prepare: Any, tmp_path: Path) -> None:
    resign(prepare(), rows=2)
    assert "has 3 rows, and its manifest says 2" in refused(tmp_path)


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


# ---- where prepared rows are kept ----------------------------------------------------------------


def test_without_a_home_the_cache_is_in_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TUNEWRIGHT_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    from tunewright_dataset_chat import local_paths

    folder, note = local_paths.default_cache()
    assert folder.is_relative_to(tmp_path / "temporary")
    assert note.startswith("no home folder is known: prepared rows are kept in")
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_a_temporary_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewright import RunError
    from tunewright_dataset_chat import local_paths

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: 4711)
    (tmp_path / "tunewright-4711").mkdir()  # of the user that runs the tests
    with pytest.raises(RunError, match="belongs to somebody else"):
        local_paths._own_temporary()
    (tmp_path / "tunewright-4711").rmdir()
    (tmp_path / "tunewright-4711").symlink_to(tmp_path)
    with pytest.raises(RunError, match="belongs to somebody else"):
        local_paths._own_temporary()
