"""Passwords in URLs: in no error, title, note, fingerprint or manifest."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data.running import build, chat_run, request
from tunewright import RecipeError
from tunewright.recipe import mask
from tunewright.urls import mask_url
from tunewright_dataset_chat import files, fingerprint, remote
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.source import open_sources

URLS = [
    "https://user:pa55word@host/x.jsonl",
    "HTTPS://user:pa55word@host:8080/x.jsonl?a=1",
    "https://pa55word@host/x.jsonl",
    "https://host/x.jsonl?X-Amz-Signature=pa55word&a=1",
    "https://host/x.jsonl?sv=2024&sig=pa55word",
    "https://host/x.jsonl?access_token=pa55word#pa55word",
    "s3://user:pa55word@bucket/x.jsonl",
    "https://user:pa55word@host",
    "https://user:pa55word@[::1/x.jsonl",
    "ftp://user:pa55word@host/x.jsonl",
    "simplecache::https://pa55word@host/x.jsonl",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_shown_without_secrets(url: str) -> None:
    assert "pa55word" not in remote.shown(url)
    assert "pa55word" not in mask_url(url) and "pa55word" not in json.dumps(mask({"path": url}))
    assert remote.shown(url).partition("/x")[0].endswith(("host", "host:8080", "bucket", "[::1"))


@pytest.mark.parametrize(
    "url",
    [
        "az://container@account/a.jsonl",
        "s3://bucket/a@b/c.jsonl",
        "https://host/a?part=2",
        "a/b@c",
        "an answer: https://user:word@host is not masked in text",
    ],
)
def test_what_is_no_secret_stays(url: str) -> None:
    assert mask_url(url) == url


def test_what_a_library_says_is_cleaned() -> None:
    url = "https://user:p%40ss%2Fword@host/x.jsonl?key=abc123"
    for text in (
        f"cannot get {url}",
        "no user:p%40ss%2Fword there",
        "no user p@ss/word there",
        "GET /x.jsonl?key=abc123 failed",
    ):
        said = remote.said(ConnectionError(text), url)
        assert not any(secret in said for secret in ("p%40ss", "p@ss", "abc123")), said
    assert remote.said(ConnectionError("\n\n"), url) == "ConnectionError"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setitem(remote.PACKAGES, "memory", "fsspec")
    memory = fsspec.filesystem("memory")
    row = json.dumps({"instruction": "a", "output": "b"}) + "\n"
    memory.pipe({"/me:pa55word@box/a.jsonl.gz": gzip.compress(row.encode())})
    yield memory
    memory.store.clear()


def test_nothing_that_is_written_holds_the_password(tmp_path: Path, store: Any) -> None:
    url = "memory://me:pa55word@box/a.jsonl.gz"
    (source,) = open_sources([Entry(path=url)], "data", tmp_path)
    data = build(chat_run(tmp_path, cache="cache"), request(tmp_path, url))
    assert len(data.train) == 1
    said = [source.title, source.note, *(file.name for file in source.files), *data.notes]
    written = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert "memory://***@box/a.jsonl.gz" in said[0]
    assert all("pa55word" not in text for text in said)
    assert all(b"pa55word" not in each for each in written)


def test_a_new_password_is_the_same_source() -> None:
    one, two = (Entry(path=f"https://me:{word}@host/a.jsonl?part=1") for word in ("a", "b"))
    other = Entry(path="https://me:a@host/a.jsonl?part=2")
    assert fingerprint.written(one) == fingerprint.written(two) != fingerprint.written(other)


@pytest.mark.parametrize("url", URLS)
def test_errors_of_urls_hold_no_secret(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(found: str) -> Any:
        raise ImportError(f"cannot open {found}")

    monkeypatch.setattr(fsspec, "url_to_fs", fail)
    with pytest.raises(RecipeError) as caught:
        files.find(url, Path(), files.Wanted("data.0.path"))
    assert "pa55word" not in str(caught.value)
