"""The media store, and rows 24 to 33 of the record of attacks as far as bytes in data go."""

import base64
from pathlib import Path

import pytest

from media.running import build, write
from media.samples import image
from tunewright import RowError, RunError
from tunewright.types import Conversation, MediaPart, Message
from tunewright_dataset_chat import media, media_store
from tunewright_hf.media.data_urls import of_url


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,iVBORw==",
        "data:image/png;base64,iVBO\r\n Rw==",
        "data:image/png;charset=utf-8;base64,iVBORw==",
        "data:image/svg+xml,%89PNG",
    ],
)
def test_data_urls(url: str) -> None:
    assert of_url(url, "image") == b"\x89PNG"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("data:image/png;base64,iVBORw", "is not valid base64"),
        ("data:image/png;base64,iV*BORw=", "is not valid base64"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png,", "is empty"),
        ("data:audio/wav;base64,AAAA", "is no data: URL of type image/"),
        ("data:image;base64,AAAA", "is no data: URL of type image/"),
        ("data:image/png;base64", "is no data: URL of type image/"),
        ("data:text/html,<script>", "is no data: URL of type image/"),
    ],
)
def test_data_urls_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(RowError, match=said):
        of_url(url, "image")


def test_a_file_is_stored_once_and_whole(tmp_path: Path) -> None:
    path = media_store.put(b"abc", tmp_path / "media")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert path == tmp_path / "media" / "ba" / digest and path.read_bytes() == b"abc"
    before = path.stat().st_mtime_ns
    assert media_store.put(b"abc", tmp_path / "media") == path
    assert path.stat().st_mtime_ns == before
    path.write_bytes(b"a")  # cut off by a full disk of another program
    assert media_store.put(b"abc", tmp_path / "media").read_bytes() == b"abc"
    assert [each.name for each in path.parent.iterdir()] == [digest]


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "media").write_text("in the way")
    with pytest.raises(RunError, match="media of the data cannot be stored"):
        media_store.put(b"abc", tmp_path / "media")


def test_a_row_is_located_twice(tmp_path: Path) -> None:
    """The rows of a ranking share their prompt."""
    folders = media.Folders(tmp_path, tmp_path / "store")
    part = MediaPart("image", "", b"abc")
    row = Conversation([Message("user", [part])])
    media.locate(row, folders)
    first = part.path
    media.locate(row, folders)
    assert part.path == first and part.data is None
    assert media.written([part], folders)[0]["path"] == f"sha256:{Path(first).name}"


def test_without_a_store_bytes_stay(tmp_path: Path) -> None:
    part = MediaPart("image", "", b"abc")
    media.locate(Conversation([Message("user", [part])]), media.Folders(tmp_path))
    assert part.data == b"abc" and not list(tmp_path.iterdir())


def test_rankings_with_bytes(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="transformers' processors of images and video")
    data = base64.b64encode(Path(image(tmp_path / "a.png", (112, 84))).read_bytes()).decode()
    url = f"data:image/png;base64,{data}"
    record = {"prompt": "<image>?", "answers": ["a", "b", "c"], "images": [url]}
    write(tmp_path, record)
    entry = {"path": str(tmp_path / "rows.jsonl"), "format": "ranking"}
    rows = build(tmp_path, "preference", data=[entry]).train
    assert len(rows) == 2 and len({row["media"][0]["path"] for row in rows}) == 1
