"""Prepared rows on disk: made once, made anew whenever anything changes that they depend on."""

import gc
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from filelock import FileLock

from data.running import TEMPLATE, build, chat_run, made, rendered, request, write
from tunewright import RecipeError, RowError, RunError
from tunewright.check import resolve
from tunewright.run import Run


def test_a_second_run_reads_what_the_first_one_made(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", "a", "b", "c")
    first, second = (chat_run(tmp_path, cache="cache") for _ in range(2))
    one = build(first, request(tmp_path, name))
    two = build(second, request(tmp_path, name))
    assert (rendered(first), rendered(second)) == (3, 0)
    assert list(one.train) == list(two.train)
    assert (one.rows_read, one.dropped, one.fingerprint) == (
        two.rows_read,
        two.dropped,
        two.fingerprint,
    )
    assert two.notes == ["a.jsonl: 3 records, format openai (detected), from the cache"]
    copied = write(tmp_path / "other.jsonl", "a", "b", "c")  # not where it is, but what is in it
    assert made(second, request(tmp_path, copied)) == 0


def test_rows_are_read_where_they_lie(tmp_path: Path) -> None:
    data = build(
        chat_run(tmp_path, cache="cache"), request(tmp_path, write(tmp_path / "a.jsonl", "a", "b"))
    )
    (file,) = (tmp_path / "cache").glob("*/rows.arrow")
    assert [each["filename"] for each in data.train.cache_files] == [str(file)]
    assert {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()} == {
        ".arrow",
        ".json",
        ".lock",
    }


def test_another_mixing_needs_no_new_rows(tmp_path: Path) -> None:
    names = [write(tmp_path / f"{letter}.jsonl", letter, letter) for letter in "ab"]
    run = chat_run(tmp_path, cache="cache")
    one = build(run, request(tmp_path, *names))
    mixed = chat_run(tmp_path, cache="cache", mixing="interleave", validation=1)
    two = build(mixed, request(tmp_path, {"path": names[0], "weight": 2}, {"path": names[1]}))
    assert (rendered(run), rendered(mixed)) == (4, 0)
    assert one.fingerprint != two.fingerprint  # but a run is not resumed with it


def test_a_row_error_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "a", "b")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(RowError):
        build(chat_run(tmp_path, cache="cache"), request(tmp_path, "a.jsonl"))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_what_is_not_whole_is_rebuilt(tmp_path: Path) -> None:
    run, asked = (
        chat_run(tmp_path, cache="cache"),
        request(tmp_path, write(tmp_path / "a.jsonl", "a")),
    )
    build(run, asked)
    (file,) = (tmp_path / "cache").glob("*/rows.arrow")
    for damage in (
        lambda: file.write_bytes(b"x"),
        lambda: file.with_name("manifest.json").write_text("{"),
    ):
        damage()
        assert made(run, asked) == 1
        assert made(run, asked) == 0


def test_a_full_or_closed_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    asked = request(tmp_path, write(tmp_path / "a.jsonl", "a"))
    with pytest.raises(RunError, match="prepared data cannot be written") as caught:
        build(chat_run(tmp_path, cache="file"), asked)
    assert "cache: FOLDER" in caught.value.hint

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tunewright_dataset_chat.cached_shards.os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        build(chat_run(tmp_path, cache="cache"), asked)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


PROCESS = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from data.running import build, chat_run, request
folder, own = Path(sys.argv[1]), Path(sys.argv[2])
own.mkdir()
run = chat_run(own, cache="cache")
build(run, request(folder, "a.jsonl"))
print(run.called["format_template"])
"""


@pytest.mark.slow
def test_processes_at_the_same_time_prepare_once(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *"abc")
    code = PROCESS.format(tests=str(Path(__file__).parents[1]))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(tmp_path / f"{n}")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    assert sorted(int(process.communicate()[0]) for process in started) == [0, 3]


# ---- folders for other machines ------------------------------------------------------------------


def test_prepared_rows_need_no_sources(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    entries = [
        {"path": write(home / "a.jsonl", "a", "b")},
        {"path": write(home / "b.jsonl", "c"), "weight": 2},
    ]
    whole = build(chat_run(home, cache="made"), request(home, *entries))
    shutil.copytree(home / "made", other / "made")
    run = chat_run(other, prepared="made")
    data = build(run, request(other, *entries))
    assert list(data.train) == list(whole.train)
    assert (rendered(run), data.rows_read, data.fingerprint) == (0, 3, whole.fingerprint)
    assert made(run, request(other, {**entries[0], "weight": 3})) == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_length": 100}, "another max_length"),
        ({"options": {"truncate": "end"}}, "another truncate"),
        ({"template": TEMPLATE + " "}, "another template"),
        ({"entry": {"limit": 1}}, "holds no rows of data.0"),
    ],
    ids=lambda each: "" if isinstance(each, str) else str(*each),
)
def test_prepared_rows_of_other_settings_are_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    name = write(tmp_path / "a.jsonl", "a")
    build(chat_run(tmp_path, cache="made"), request(tmp_path, name))
    run = chat_run(
        tmp_path, change.get("template", TEMPLATE), prepared="made", **change.get("options", {})
    )
    asked = request(
        tmp_path,
        {"path": name, **change.get("entry", {})},
        max_length=change.get("max_length", 200),
    )
    with pytest.raises(RecipeError, match=named):
        build(run, asked)


def test_two_versions_of_a_source_in_a_prepared_folder_are_refused(tmp_path: Path) -> None:
    """None of them is silently the old one."""
    for text in "ab":
        build(
            chat_run(tmp_path, cache="made"), request(tmp_path, write(tmp_path / "a.jsonl", text))
        )
    with pytest.raises(RecipeError, match=r"holds 2 versions of data\.0") as caught:
        build(chat_run(tmp_path, prepared="made"), request(tmp_path, "a.jsonl"))
    assert "delete the folder" in caught.value.hint


# ---- columns -------------------------------------------------------------------------------------


def test_training_rows_have_no_fingerprint_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would pickle the table to make one."""
    monkeypatch.setattr(
        datasets.fingerprint.Hasher, "hash", lambda value: pytest.fail("hashed by pickle")
    )
    name = write(tmp_path / "a.jsonl", *"abcd")
    build(chat_run(tmp_path, cache="cache", validation=2), request(tmp_path, name))


def test_chunks_leave_no_garbage(tmp_path: Path) -> None:
    """Preparing switches Python's own collector off: what templates with macros leave in cycles
    must not wait for its end."""
    name = write(tmp_path / "a.jsonl", *(f"text {number}" for number in range(3000)))
    made = {
        "model": "tiny",
        "family": "qwen",
        "template": "chatml",
        "stage": "sft",
        "loggers": [],
        "output": "none",
        "dataset": {"name": "chat", "cache": str(tmp_path / "cache")},
        "data": [{"path": str(tmp_path / name)}],
    }
    run = Run(resolve(made))
    asked = run.data_request(run.load(weights="none"))
    gc.collect()
    gc.disable()
    try:
        run.call("dataset", "build_dataset", asked)
        left = gc.collect()
    finally:
        gc.enable()
    assert left < 3000  # without collecting it was 24 a row


def test_hosts_with_one_cache_share_the_work(tmp_path: Path) -> None:
    """While another one prepares the first source, this one prepares the second."""
    first = write(tmp_path / "a.jsonl", "a")
    build(chat_run(tmp_path, cache="probe"), request(tmp_path, first))
    (folder,) = (path.parent for path in (tmp_path / "probe").glob("*/rows.arrow"))
    (tmp_path / "cache").mkdir()
    lock = FileLock(tmp_path / "cache" / f"{folder.name}.lock", thread_local=False)
    lock.acquire()
    seen: list[bool] = []

    def other() -> None:
        deadline = time.monotonic() + 60
        while not (made := list((tmp_path / "cache").glob("*/rows.arrow"))):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        seen.append(bool(made))
        lock.release()

    thread = threading.Thread(target=other)
    thread.start()
    names = first, write(tmp_path / "b.jsonl", "b", "c")
    data = build(chat_run(tmp_path, cache="cache"), request(tmp_path, *names))
    thread.join()
    assert seen == [True]
    assert len(data.train) == 3
