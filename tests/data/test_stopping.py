"""Ctrl-C while data is prepared: the next chunk of rows is not converted."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from data.running import build, chat_run, request, write
from tunewright.errors import Stopped
from tunewright_dataset_chat import source_stream
from tunewright_dataset_chat.source_stream import BATCH


def test_preparing_stops_between_two_chunks(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *("abc" * BATCH))
    asks = iter([False, True])
    run = chat_run(tmp_path, cache="cache")
    run.stop_requested = lambda: next(asks)
    with pytest.raises(Stopped):
        build(run, request(tmp_path, "a.jsonl"))
    assert next(asks, None) is None
    assert not list((tmp_path / "cache").rglob("manifest.json"))
    whole = chat_run(tmp_path, cache="cache")
    assert len(build(whole, request(tmp_path, "a.jsonl")).train) == 3 * BATCH


def test_long_records_are_in_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl", *("abc" * 4))

    def chunks(cache: str) -> int:
        """Times that a stop is looked for: once a chunk."""
        looks = []
        run = chat_run(tmp_path, cache=cache)
        run.stop_requested = lambda: bool(looks.append(1))
        assert len(build(run, request(tmp_path, "a.jsonl")).train) == 12
        return len(looks)

    assert chunks("one") == 1
    monkeypatch.setattr(source_stream, "CHARACTERS", 1)
    assert chunks("other") == 12


def test_waiting_for_another_run_to_prepare_the_same_rows_stops(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "abc")
    build(chat_run(tmp_path, cache="cache"), request(tmp_path, "a.jsonl"))
    (manifest,) = (tmp_path / "cache").rglob("manifest.json")
    shutil.rmtree(manifest.parent)

    run = chat_run(tmp_path, cache="cache")
    run.stop_requested = lambda: True
    with (
        FileLock(manifest.parent.with_name(f"{manifest.parent.name}.lock")),
        pytest.raises(Stopped),
    ):
        build(run, request(tmp_path, "a.jsonl"))
    assert not manifest.exists()
