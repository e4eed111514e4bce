"""Rows whose media come as bytes, and prepared rows that were moved or made by others."""

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from media.running import build, talk, write
from media.samples import image
from tunewright import RecipeError, RunError

pytest.importorskip("torchvision", reason="transformers' processors of images and video")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image(tmp_path / "a.png", (112, 84))
    image(tmp_path / "b.png", (224, 140), "blue")
    return tmp_path


def feature(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [{"bytes": (folder / name).read_bytes(), "path": name} for name in names]


def test_bytes_of_parquet_files_are_stored_once(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    records = [
        {"messages": talk("<image>")["messages"], "images": feature(folder, "a.png")},
        {
            "messages": talk("<image><image>")["messages"],
            "images": feature(folder, "b.png", "a.png"),
        },
    ]
    parquet.write_table(pa.Table.from_pylist(records), data / "rows.parquet")
    rows = build(folder, data=[{"path": str(data)}]).train
    store = (folder / "cache" / "media").resolve()
    found = sorted(path for path in store.rglob("*") if path.is_file())
    assert len(found) == 2 and all(path.parent.name == path.name[:2] for path in found)
    paths = [part["path"] for row in rows for part in row["media"]]
    assert [Path(path) in found for path in paths] == [True] * 3 and paths[0] == paths[2]
    assert Path(paths[0]).read_bytes() == (folder / "a.png").read_bytes()
    before = [path.stat().st_mtime_ns for path in found]
    build(folder, data=[{"path": str(data)}], training={"max_length": 1999})  # prepared again
    assert [path.stat().st_mtime_ns for path in found] == before


@pytest.mark.parametrize("how", ["parquet", "save_to_disk"])
def test_features_of_the_datasets_library(folder: Path, how: str) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {
        "messages": [talk("<image>")["messages"]],
        "images": [feature(folder, "a.png")],
    }
    made = datasets.Dataset.from_dict(rows).cast_column("images", datasets.List(datasets.Image()))
    saved = folder / "saved"
    saved.mkdir()
    made.to_parquet(saved / "a.parquet") if how == "parquet" else made.save_to_disk(saved)
    (folder / "a.png").unlink()
    (row,) = build(folder, data=[{"path": str(saved)}]).train
    assert Path(row["media"][0]["path"]).is_relative_to((folder / "cache" / "media").resolve())


def test_prepared_rows_move_with_their_media(folder: Path, tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode((folder / "b.png").read_bytes()).decode()
    write(folder, talk("<image>", images=["a.png"]), talk("<image>", images=[url]))
    made = build(folder, dataset={"cache": str(folder / "made")})
    manifest = next((folder / "made").glob("*/rows.arrow"))
    stored = pa.ipc.open_stream(manifest.read_bytes()).read_all().column("media").to_pylist()
    assert stored[0] == [{"kind": "image", "path": "a.png"}]
    assert stored[1][0]["path"].startswith("sha256:")
    other = tmp_path / "other"
    shutil.copytree(folder / "made", other / "made")
    shutil.copy(folder / "a.png", other / "a.png")
    shutil.copy(folder / "rows.jsonl", other / "rows.jsonl")
    for name in ("a.png", "made"):
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    entry = {"path": str(folder / "rows.jsonl"), "media_root": str(other)}
    with pytest.raises(RecipeError, match="holds no rows of"):  # another entry was prepared
        build(folder, dataset={"prepared": str(other / "made")}, data=[entry])
    with pytest.raises(RecipeError, match=r"row 1: image 'a\.png' is not there"):
        build(folder, dataset={"prepared": str(other / "made")})
    shutil.copy(other / "a.png", folder / "a.png")
    rows = build(folder, dataset={"prepared": str(other / "made")}).train
    assert [row["input_ids"] for row in rows] == [row["input_ids"] for row in made.train]
    assert [Path(row["media"][0]["path"]).is_file() for row in rows] == [True, True]


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "a/../../x", "link.png", "sha256:../../x", "~/x"]
)
def test_prepared_rows_of_others_stay_in_their_folders(folder: Path, path: str) -> None:
    inside = folder / "inside"
    inside.mkdir()
    image(inside / "a.png")
    image(folder / "secret.png")
    (inside / "link.png").symlink_to(folder / "secret.png")
    write(inside, talk("<image>", images=["a.png"]))
    build(inside, dataset={"cache": str(inside / "made")})
    (rows,) = (inside / "made").glob("*/rows.arrow")
    table = pa.ipc.open_stream(rows.read_bytes()).read_all()
    index = table.column_names.index("media")
    column = pa.array([[{"kind": "image", "path": path}]], table.schema.field(index).type)
    with rows.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.set_column(index, table.schema.field(index), column))
    manifest = rows.with_name("manifest.json")
    facts = json.loads(manifest.read_text())
    facts |= {
        "bytes": rows.stat().st_size,
        "sha256": hashlib.sha256(rows.read_bytes()).hexdigest(),
    }
    manifest.write_text(json.dumps(facts))
    with pytest.raises(RecipeError, match=r"row 1: image .* (leads out|is not there|names no)"):
        build(inside, dataset={"prepared": str(inside / "made")})


def test_a_store_that_cannot_be_written(folder: Path) -> None:
    (folder / "cache").mkdir()
    (folder / "cache" / "media").write_text("in the way")
    write(folder, talk("<image>", images=["data:image/png;base64,AAAA"]))
    with pytest.raises(RunError, match="media of the data cannot be stored"):
        build(folder)
