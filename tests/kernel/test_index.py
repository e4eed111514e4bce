"""The cached index of entry points: right after every change, whatever the cache holds."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunewright import index, registry

ADAPTER = """
class A(Plugin):
    @hookimpl
    def apply_adapter(self, request): ...
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    index.points.cache_clear()
    index.key.cache_clear()
    yield tmp_path / "cache/tunewright"
    index.points.cache_clear()
    index.key.cache_clear()


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Grows when the metadata of all distributions is read."""
    found: list[int] = []
    real = index._read
    monkeypatch.setattr(index, "_read", lambda: found.append(1) or real())
    return found


def names() -> list[str]:
    index.points.cache_clear()
    index.key.cache_clear()
    return [entry.name for entry in registry.entries("adapter")]


def test_the_second_look_reads_no_metadata(reads, cache):
    first = names()
    assert names() == first and reads == [1]
    assert len(list(cache.iterdir())) == 1


def test_a_new_distribution_is_seen_and_one_that_goes_too(reads, install, tmp_path):
    names()
    install("tw-one", {"adapter": {"one": "tw_one:A"}}, ADAPTER)
    assert "one" in names() and len(reads) == 2
    (tmp_path / "tw_one-1.0.dist-info/METADATA").unlink()
    (tmp_path / "tw_one-1.0.dist-info/entry_points.txt").unlink()
    (tmp_path / "tw_one-1.0.dist-info").rmdir()
    assert "one" not in names()


def test_an_edited_entry_point_is_seen(install, tmp_path):
    install("tw-one", {"adapter": {"one": "tw_one:A"}}, ADAPTER)
    assert "one" in names()
    file = tmp_path / "tw_one-1.0.dist-info/entry_points.txt"
    before = file.stat()
    with file.open("r+") as opened:  # in place: the folder's own time stays
        opened.write("[tunewright.adapter]\ntwo = tw_one:A\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000))
    assert "two" in names() and "one" not in names()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[",
        "7",
        "null",
        '{"a": 1}',
        "[1]",
        '["x"]',
        '[{"group": "adapter"}]',
        '[{"group": 5, "name": 1, "value": 1, "distribution": 1, "version": 1, "summary": 1}]',
        '[{"nonsense": 1}]',
        "[" * 50_000,
        "\x00",
    ],
    ids=lambda text: text[:20],
)
def test_a_damaged_cache_is_made_again(reads, cache, text):
    first = names()
    (file,) = cache.iterdir()
    whole = file.read_text()
    file.write_text(text)
    assert names() == first and len(reads) == 2
    assert file.read_text() == whole


def test_a_cache_that_is_no_text(cache):
    first = names()
    (file,) = cache.iterdir()
    file.write_bytes(b"\xff\xfe")
    assert names() == first


@pytest.mark.parametrize("obstacle", ["file", "folder in its place", "no home"])
def test_a_cache_that_cannot_be_written_harms_nothing(reads, cache, monkeypatch, obstacle):
    if obstacle == "file":
        cache.parent.write_text("in the way")
    elif obstacle == "folder in its place":
        (cache / f"index-{index.key()}.json").mkdir(parents=True)
    else:
        monkeypatch.delenv("TUNEWRIGHT_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", no_home)
    assert "full" in names()
    assert "full" in names() and len(reads) == 2
    assert not list(cache.parent.glob("**/*.new")) if cache.parent.is_dir() else True


def test_a_full_disk_leaves_no_half_of_a_file(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "full" in names()
    assert list(cache.iterdir()) == []


def test_old_files_go(cache):
    cache.mkdir(parents=True)
    for number in range(40):
        (cache / f"index-{number:032}.json").write_text("[]")
        os.utime(cache / f"index-{number:032}.json", (number, number))
    (cache / "schema-1.json").write_text("{}")
    names()
    left = [file.name for file in cache.iterdir()]
    assert len(left) == 22 and "schema-1.json" in left
    assert f"index-{39:032}.json" in left and f"index-{0:032}.json" not in left


def test_the_current_folder_does_not_make_a_cache_of_its_own(reads, monkeypatch, tmp_path):
    names()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    names()
    assert reads == [1]


def test_two_processes_at_once(cache):
    code = "from tunewright import registry; print(len(registry.entries('stage')))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = {process.communicate(timeout=120)[0] for process in started}
    assert len(printed) == 1 and int(printed.pop()) > 5
    assert {process.returncode for process in started} == {0}
    assert [json.loads(file.read_text()) for file in cache.glob("*.json")]
    assert not list(cache.glob("*.new"))


@pytest.mark.parametrize("group", ["adapter", "kind", "command", "model_type", "check"])
def test_a_distribution_without_metadata_is_none(install, tmp_path, group):
    install("tw-half", {group: {"full": "tw_half:A"}}, ADAPTER)
    (tmp_path / "tw_half-1.0.dist-info/METADATA").unlink()
    names()
    assert registry.find("adapter", "full").distribution == "tunewright-full"
    assert not [point for point in index.points() if point.value == "tw_half:A"]


@pytest.mark.parametrize(
    "metadata",
    [b"", b"\xff\xfe\x00", b"Name:\n", b"Name: tw-odd\n", b"no colon at all\n" * 3],
    ids=range(5),
)
def test_odd_metadata_breaks_nothing(install, tmp_path, metadata):
    install("tw-odd", {"adapter": {"odd": "tw_odd:A"}}, ADAPTER)
    (tmp_path / "tw_odd-1.0.dist-info/METADATA").write_bytes(metadata)
    assert ("odd" in names()) == (b"tw-odd" in metadata)


def test_odd_entry_points_break_nothing(install, tmp_path):
    install("tw-odd", {"adapter": {"odd": "tw_odd:A"}}, ADAPTER)
    text = "x\n[\n[]\n=\n;c=d\n#e=f\n"
    text += "[tunewright.adapter]\nodd=tw_odd:A [extra]\nbad\n= b\n\n[z]\ng=h\n"
    (tmp_path / "tw_odd-1.0.dist-info/entry_points.txt").write_text(text)
    names()
    found = {entry.name: entry.value for entry in registry.entries("adapter")}
    assert found["odd"] == "tw_odd:A"
    assert not {"c", "e", "g", "bad"} & found.keys()


def test_the_key_is_cheap():
    began = time.process_time()
    index.key.cache_clear()
    index.key()
    assert time.process_time() - began < 0.2
