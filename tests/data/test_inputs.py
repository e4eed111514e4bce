"""Data sources: compressed, in tables, saved by datasets, in folders, on stores; and refused
ones."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data.running import build, chat_run, request
from tunewright import RecipeError, RowError
from tunewright.types import Conversation, MediaPart, Message
from tunewright_dataset_chat import files, media, readers, remote
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES
from tunewright_dataset_chat.source import open_sources

RECORDS = [{"instruction": f"a {n} “ß”", "output": "b"} for n in range(3)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def find(folder: Path, path: str) -> list[files.File]:
    return files.find(path, folder, files.Wanted("data.0.path")).files


def read(folder: Path, path: str, split: str | None = None) -> list[Any]:
    wanted = files.Wanted("data.0.path", split)
    found = files.read(files.find(path, folder, wanted).files, MAX_RECORD_BYTES)
    return [str(item) if isinstance(item, RowError) else item[1] for item in found]


def zst(data: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


# ---- packed files and tables ---------------------------------------------------------------------


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (".jsonl", LINES),
        (".json", json.dumps(RECORDS, indent=1).encode()),
        (
            ".csv",
            b"instruction,output\n" + "".join(f"{r['instruction']},b\n" for r in RECORDS).encode(),
        ),
    ],
)
def test_packed_files(tmp_path: Path, kind: str, data: bytes, ending: str) -> None:
    pack = PACKED[ending]
    file = tmp_path / f"a{kind}{ending}"
    file.write_bytes(pack(data))
    assert read(tmp_path, file.name) == RECORDS
    assert read(tmp_path, ".") == RECORDS
    half = len(data) // 2
    file.write_bytes(pack(data[:half]) + pack(data[half:]))  # as several streams
    assert read(tmp_path, file.name) == RECORDS
    file.write_bytes(pack(data)[:-9])
    with pytest.raises(RowError, match="cannot be read to its end") as caught:
        read(tmp_path, file.name)
    assert caught.value.place == str(file)
    file.write_bytes(data)
    with pytest.raises(RowError, match="cannot be read to its end"):
        read(tmp_path, file.name)


def first_error(items: Iterator[Any]) -> str:
    try:
        return str(next(item for item in items if isinstance(item, RowError)))
    except RowError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "txt"])
@pytest.mark.parametrize("ending", PACKED)
def test_an_endless_record_ends_early_and_in_little_memory(
    tmp_path: Path, kind: str, ending: str
) -> None:
    start = {"jsonl": b'{"a": "', "json": b'[{"a": "', "csv": b'a,b\n1,"', "txt": b""}[kind]
    file = tmp_path / f"a.{kind}{ending}"
    file.write_bytes(PACKED[ending](start + b"a" * 40_000_000))
    tracemalloc.start()
    try:
        said = first_error(files.read(find(tmp_path, file.name), 1_000_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    assert said.startswith(
        f"{file}:{2 if kind == 'csv' else 1}: has a record of more than 1,000,000"
    )
    assert "max_record_bytes: 2000000" in said


def test_a_record_that_is_too_long_is_left_out_alone(tmp_path: Path) -> None:
    record = {"instruction": "a", "output": "b"}
    text = json.dumps(record) + "\n" + json.dumps(record | {"output": "c" * 5000}) + "\n"
    (tmp_path / "a.jsonl").write_text(text + json.dumps(record))
    table = pa.Table.from_pylist([json.loads(line) for line in (text + text).splitlines()])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    for name, kept in (("a.jsonl", [1, 3]), ("a.parquet", [1, 3])):
        run = chat_run(tmp_path, on_bad_row="skip", max_record_bytes=1000)
        data = build(run, request(tmp_path, name))
        assert len(data.train) == len(kept)
        assert data.dropped["cannot be used"] == data.rows_read - len(kept)
        place = f"{name}:2: has a record of more than 1,000 bytes"
        assert any(place in note for note in data.notes)


def test_records_of_an_arrow_file_are_as_long_as_they_may_be(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"text": "a" * 5_000}] * 3000)  # 15 MB, but no long record
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    found = list(files.read(find(tmp_path, "a.parquet"), 6_000))
    assert len(found) == 3000
    assert not any(isinstance(item, RowError) for item in found)


@pytest.mark.parametrize("kind", ["file", "stream", "feather"])
def test_arrow(tmp_path: Path, kind: str) -> None:
    table = pa.Table.from_pylist(RECORDS * 1000)
    if kind == "feather":
        from pyarrow import feather

        feather.write_feather(table, tmp_path / "a.feather")
    else:
        write = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with write(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
    assert read(tmp_path, "*") == RECORDS * 1000


def test_broken_arrow(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").write_bytes(b"ARROW1 is not all")
    (tmp_path / "b.arrow").write_bytes(b"nothing of it")
    (tmp_path / "c.feather").write_bytes(b"FEA1")
    for name, expected in (
        ("a.arrow", "Arrow"),
        ("b.arrow", "Arrow"),
        ("c.feather", "first version"),
    ):
        with pytest.raises(RowError, match=expected):
            read(tmp_path, name)


def broken_arrow(path: Path, offsets: list[int]) -> None:
    """A file of two strings whose offsets are these."""
    texts = pa.array(["aaaa", "bbbb"])
    batch = pa.record_batch({"text": texts})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    before, after = (np.array(x, "<i4").tobytes() for x in ([0, 4, 8], offsets))
    data = sink.getvalue().to_pybytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))


@pytest.mark.parametrize(
    "offsets",
    [[0, 10**9, 2 * 10**9], [0, -5, 8], [8, 4, 0], [0, 10**6, 2 * 10**6], [-4, 0, 4]],
)
def test_offsets_of_a_broken_file_are_not_followed(tmp_path: Path, offsets: list[int]) -> None:
    broken_arrow(tmp_path / "a.arrow", offsets)
    code = (  # in a process of its own, which may die
        "import sys; from pathlib import Path; from tunewright import RowError\n"
        "from tunewright_dataset_chat import files\n"
        "found = files.find('a.arrow', Path(sys.argv[1]), files.Wanted('')).files\n"
        "try: list(files.read(found, 99))\n"
        "except RowError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a.arrow: is not valid Arrow" in done.stdout


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_flipped_bytes_of_a_file_are_one_error(tmp_path: Path, kind: str) -> None:
    table = pa.Table.from_pylist(
        [
            {"text": f"{n} äöü", "more": [{"a": n, "b": str(n)}], "kind": str(n % 3)}
            for n in range(50)
        ]
    )
    table = table.set_column(2, "kind", table["kind"].dictionary_encode())
    file = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pa.parquet.write_table(table, file)
    else:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    whole, chance = file.read_bytes(), np.random.default_rng(7)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        data[chance.integers(len(data))] ^= 1 << int(chance.integers(8))
        file.write_bytes(data)
        try:
            read(tmp_path, file.name)
        except RowError as error:
            refused += "\n" not in str(error)
    assert refused > 20


# ---- JSON lists ----------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def parse(data: bytes, chunk: int) -> list[Any]:
    before, readers._CHUNK = readers._CHUNK, chunk
    try:
        found = list(
            readers.json_file(io.BufferedReader(io.BytesIO(data)), "a.json", MAX_RECORD_BYTES)
        )  # type: ignore[arg-type]
    finally:
        readers._CHUNK = before
    assert [item[0].line for item in found if not isinstance(item, RowError)] == list(
        range(1, len(found) + 1)
    )
    return [item[1] for item in found if not isinstance(item, RowError)]


@given(st.lists(values), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
@example([123456, -1.5e300, 7], 1, False, None)
def test_json_in_parts_is_json(
    records: list[Any], chunk: int, ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(records, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "surrogatepass"
    )
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    assert parse(data, chunk) == records


@given(st.lists(values, min_size=1, max_size=3), st.integers(1, 40), st.data())
def test_broken_json_is_an_error_in_its_line(
    records: list[Any], chunk: int, data: st.DataObject
) -> None:
    text = json.dumps(records, indent=1).encode()
    cut = data.draw(st.integers(1, len(text) - 1))
    with pytest.raises(RowError, match="is not valid JSON") as caught:
        parse(text[:cut], chunk)
    assert 1 <= int(caught.value.place.removeprefix("a.json:")) <= text[:cut].count(b"\n") + 1
    with pytest.raises(RowError, match="after the list"):
        parse(text + b"x", chunk)


def test_line_of_a_late_error() -> None:
    text = "[\n" + ",\n".join('{"a": "' + "b" * 90 + '"}' for _ in range(50)) + ",\n{'a': 1}\n]"
    with pytest.raises(RowError) as caught:
        parse(text.encode(), 64)
    assert caught.value.place == "a.json:52"


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


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    import datasets

    data = datasets.Dataset.from_list(RECORDS)
    data.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "both")
    datasets.DatasetDict({"held": data.select([1])}).save_to_disk(tmp_path / "held")
    return tmp_path


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


# ---- on stores -----------------------------------------------------------------------------------


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
