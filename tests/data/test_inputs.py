"""Data sources: in folders, saved by datasets, with media; and refused ones."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from data.inputs_setup import LINES, RECORDS, read, saved
from tunewright import RecipeError, RowError
from tunewright.types import Conversation, MediaPart, Message
from tunewright_dataset_chat import media
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.source import open_sources

__all__ = ["saved"]


# ---- folders -------------------------------------------------------------------------------------


def test_folders_in_folders_and_what_is_left_aside(tmp_path: Path) -> None:
    for name in (
        "b/c/2.jsonl",
        "a/1.jsonl",
        "3.jsonl",
        ".cache/4.jsonl",
        "a/.5.jsonl",
        "README.md",
        "x.zip",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(name) + "\n")
    assert read(tmp_path, ".") == ["3.jsonl", "a/1.jsonl", "b/c/2.jsonl"]
    assert read(tmp_path, "**/*.jsonl") == ["3.jsonl", "a/1.jsonl", "b/c/2.jsonl"]
    (source,) = open_sources([Entry(path=".")], "data", tmp_path)
    assert source.note == ".: 0 records; left aside 2 other files (README.md, x.zip)"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="this system has no links")
def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jsonl").write_text("1")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert read(tmp_path, "a") == [1]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.zst", "a.7z"])
def test_archives_are_not_opened(tmp_path: Path, name: str) -> None:
    if name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("../x.jsonl", LINES)
    else:
        with tarfile.open(tmp_path / name, "w") as tar:
            info = tarfile.TarInfo("../x.jsonl")
            info.size = len(LINES)
            tar.addfile(info, io.BytesIO(LINES))
    with pytest.raises(RecipeError, match=f"{name} is an archive, and archives are not opened"):
        read(tmp_path, name)
    assert not (tmp_path.parent / "x.jsonl").exists()


@pytest.mark.parametrize("name", ["a.parquet.gz", "a.gz", "a.jsonl.lz4", "a"])
def test_unknown_endings(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(RecipeError, match="has an unknown ending"):
        read(tmp_path, name)


# ---- saved by datasets ---------------------------------------------------------------------------


def test_saved_data_sets_and_their_splits(saved: Path) -> None:
    assert read(saved, "one") == RECORDS
    assert read(saved, "both") == RECORDS
    assert read(saved, "both", "test") == RECORDS[:1]
    assert read(saved, "held") == RECORDS[1:2]
    with pytest.raises(RecipeError, match=r"has no split 'tset', only train, test"):
        read(saved, "both", "tset")
    with pytest.raises(RecipeError, match="has no split 'test': `save_to_disk` wrote a data"):
        read(saved, "one", "test")


@pytest.mark.parametrize(
    "name", ["../../secret.arrow", "/etc/passwd", "nowhere.arrow", "..\\x.arrow"]
)
def test_saved_data_set_names_only_its_own_files(saved: Path, name: str) -> None:
    state = saved / "one" / "state.json"
    state.write_text(
        json.dumps(json.loads(state.read_text()) | {"_data_files": [{"filename": name}]})
    )
    with pytest.raises(RecipeError, match="which is not in the folder"):
        read(saved, "one")


@pytest.mark.parametrize(
    "state", ["", "[]", "{}", '{"_data_files": 3}', '{"_data_files": ["a"]}', "[" * 100_000]
)
def test_saved_data_set_that_is_broken(saved: Path, state: str) -> None:
    (saved / "one" / "state.json").write_text(state)
    with pytest.raises(RecipeError, match=r"state\.json has no list '_data_files'"):
        read(saved, "one")


# ---- media ---------------------------------------------------------------------------------------


def with_image(path: str) -> Conversation:
    return Conversation([Message("user", [MediaPart("image", path)]), Message("assistant", "a")])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_media_stay_below_their_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(b"")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(root / "fifo.png")
    row = with_image("a.png")
    media.locate(row, media.Folders(root))
    media.locate(row, media.Folders(root))
    assert [part.path for part in media.parts(row)] == [str((root / "a.png").resolve())]
    data = with_image("data:image/png;base64,AA==")
    media.locate(data, media.Folders(None))
    for path, expected in {
        "out.png": "leads out of the media folder",
        "zero.png": "leads out of the media folder",
        "../secret.png": "leads out of the media folder",
        "/etc/passwd": "leads out of the media folder",
        "fifo.png": "is not a regular file",
        "nowhere.png": "is not there",
        "a\0b.png": "is not there",
    }.items():
        with pytest.raises(RowError, match=expected):
            media.locate(with_image(path), media.Folders(root))
    with pytest.raises(RowError, match="no folder for media is known"):
        media.locate(with_image("a.png"), media.Folders(None))


def test_media_root_is_the_datas_folder_or_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jsonl").write_text("{}")
    roots = {"sub/a.jsonl": "sub", "sub": "sub", "sub/*.jsonl": "."}
    for path, root in roots.items():
        (source,) = open_sources([Entry(path=path)], "data", tmp_path)
        assert source.media.root == tmp_path / root
    (source,) = open_sources([Entry(path="sub", media_root="pictures")], "data", tmp_path)
    assert source.media.root == tmp_path / "pictures"
