"""Data on stores: read like folders, and refused ones."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data.inputs_setup import LINES, RECORDS, read, saved
from tunewright import RecipeError
from tunewright_dataset_chat import files, remote
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.source import open_sources

__all__ = ["saved"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setitem(remote.PACKAGES, "memory", "fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe(
        {
            "/box/a.jsonl": LINES,
            "/box/sub/b.jsonl.gz": gzip.compress(LINES),
            "/box/README.md": b"hi",
        }
    )
    yield memory
    memory.store.clear()


def test_stores_are_read_like_folders(tmp_path: Path, store: Any) -> None:
    assert read(tmp_path, "memory://box/a.jsonl") == RECORDS
    assert read(tmp_path, "memory://box/*.jsonl") == RECORDS
    assert read(tmp_path, "memory://box") == RECORDS * 2
    (source,) = open_sources([Entry(path="memory://box")], "data", tmp_path)
    assert [file.name for file in source.files] == [
        "memory://box/a.jsonl",
        "memory://box/sub/b.jsonl.gz",
    ]
    assert source.note == "memory://box: 0 records; left aside 1 other files (README.md)"
    before = source.digests()
    assert before == source.digests()
    store.pipe("/box/a.jsonl", LINES + b"\n")
    assert before != source.digests()
    with pytest.raises(RecipeError, match="finds no file: memory://box/nowhere"):
        read(tmp_path, "memory://box/nowhere.jsonl")


def test_digest_is_the_stores_own_where_it_has_one(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = {"ETag": "1", "size": 3}
    monkeypatch.setattr(type(store), "info", lambda self, path: info)
    monkeypatch.setattr(type(store), "open", lambda *given, **more: pytest.fail("was read"))
    file = files.File("/box/a.jsonl", "a", ".jsonl", store=store)
    first = file.digest()
    info["ETag"] = "2"
    assert first != file.digest()


def test_saved_data_set_on_a_store(saved: Path, store: Any) -> None:
    store.put(str(saved / "both"), "/box/both", recursive=True)
    assert read(saved, "memory://box/both") == RECORDS
    assert read(saved, "memory://box/both", "test") == RECORDS[:1]


def test_failing_store_is_one_line_without_secrets(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "memory://me:secret@box/a.jsonl?key=secret"

    def fail(self: Any, path: str) -> Any:
        raise ConnectionError(f"no answer\nfrom {url}")

    monkeypatch.setattr(type(store), "isdir", fail)
    with pytest.raises(
        RecipeError, match=r"cannot be read: no answer from memory://\*\*\*@box/a\.jsonl"
    ) as caught:
        read(Path(), url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("s3://a/b", "s3fs"),
        ("gs://a/b", "gcsfs"),
        ("az://a/b", "adlfs"),
        ("https://a/b.json", "aiohttp"),
    ],
)
def test_missing_package_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> Any:
        raise ImportError("no such package")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(RecipeError, match=f"needs {package}") as caught:
        read(Path(), url)
    assert f"pip install {package}" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///etc/passwd", "found file://"),
        ("simplecache::s3://a/b.jsonl", "found '::' in a URL"),
        ("gopher://a/b.jsonl", "found gopher://, expected one of s3://"),
        ("https://me:secret@a/b.html?key=secret", r"b\.html has an unknown ending"),
        ("https://a/b.zip", r"b\.zip is an archive"),
    ],
)
def test_urls_that_are_refused(url: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected) as caught:
        read(Path(), url)
    assert "secret" not in str(caught.value)
