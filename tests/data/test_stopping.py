"""Ctrl-C while data is prepared: the next chunk of rows is not converted."""

from pathlib import Path

import pytest

from data.running import StubRun, build, request, write
from tunewright.errors import Stopped
from tunewright_dataset_chat.source_stream import BATCH


def test_preparing_stops_between_two_chunks(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *("abc" * BATCH))
    asked = 0

    class Stopping(StubRun):
        def check_stop(self) -> None:
            nonlocal asked
            asked += 1
            if asked == 2:
                raise Stopped("stopped as asked")

    run = Stopping(tmp_path, cache="cache")
    with pytest.raises(Stopped):
        build(run, request(tmp_path, "a.jsonl"))
    assert asked == 2
    assert not list((tmp_path / "cache").rglob("manifest.json"))
    whole = StubRun(tmp_path, cache="cache")
    assert len(build(whole, request(tmp_path, "a.jsonl")).train) == 3 * BATCH
