"""Folders of prepared rows of every kind, and what is said of them once they are changed."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.running import build, chat_run, request
from tunewright import RecipeError

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
