"""Compressed files, and tables of Arrow and Parquet: whole, broken and endless."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from data.inputs_setup import LINES, RECORDS, find, read
from data.running import build, chat_run, request
from tunewright import RowError
from tunewright_dataset_chat import files


def zst(data: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


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
