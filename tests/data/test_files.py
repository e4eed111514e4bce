"""Files to records, and what is said of files that cannot be read."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tunewright import RecipeError, RowError
from tunewright_dataset_chat import files
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES

RECORD = {"instruction": "a, “b”\nc", "output": "d"}


def find(path: str, folder: Path, **said: Any) -> files.Found:
    return files.find(path, folder, files.Wanted("data.0.path", **said))


def read(folder: Path, path: str) -> list[Any]:
    """Records, errors as text."""
    found = files.read(find(path, folder).files, MAX_RECORD_BYTES)
    return [str(item) if isinstance(item, RowError) else item[1] for item in found]


def lines(folder: Path, path: str) -> list[int]:
    return [
        item[0].line
        for item in files.read(find(path, folder).files, MAX_RECORD_BYTES)
        if not isinstance(item, RowError)
    ]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "\n".join([json.dumps(RECORD), "", json.dumps(RECORD)])),
        ("a.json", json.dumps([RECORD, RECORD], indent=2)),
        ("a.json", json.dumps(RECORD) + "\n" + json.dumps(RECORD)),
        ("a.csv", 'instruction,output\r\n"a, “b”\nc",d\r\n"a, “b”\nc",d\r\n'),
        ("a.tsv", 'instruction\toutput\n"a, “b”\nc"\td\n"a, “b”\nc"\td\n'),
    ],
)
def test_same_records_from_every_kind_of_file(
    tmp_path: Path, name: str, text: str, start: bytes
) -> None:
    (tmp_path / name).write_bytes(start + text.encode())
    assert read(tmp_path, name) == [RECORD, RECORD]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([RECORD] * 3), tmp_path / "a.parquet")
    assert read(tmp_path, "a.parquet") == [RECORD] * 3
    assert lines(tmp_path, "a.parquet") == [1, 2, 3]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 is not all")
    with pytest.raises(RowError, match=r"b.parquet: is not valid Parquet"):
        read(tmp_path, "b.parquet")


def test_text_files_have_one_document_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\n  two\u2028still \n".encode() + b"\xff\xfe\n")
    found = read(tmp_path, "a.txt")
    assert found[:2] == ["one", "  two\u2028still "]
    assert "a.txt:4: byte 0xff after '' is not UTF-8 (save the file as UTF-8" in found[2]
    assert lines(tmp_path, "a.txt") == [1, 3]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4\n")
    assert lines(tmp_path, "a.jsonl") == [1, 3]
    assert lines(tmp_path, "a.csv") == [2, 3]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl:2: is not valid JSON"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": "\xff"}\n',
            """a.jsonl:2: byte 0xff after '{"a": "' is not""",
        ),
        ("a.csv", b"a,b\n1,2\nb,\xe9\n", "a.csv:3: byte 0xe9 after '' is not UTF-8 (save the"),
        ("a.jsonl", b'{"a": 1}\n' + b"[" * 100_000, "a.jsonl:2: is not valid JSON"),
        ("a.csv", b"a,b\n1,2\n3\n", "a.csv:3: does not have the 2 columns of the first line"),
        ("a.csv", b"a,b\n1,2\n3,4,5\n", "a.csv:3: does not have the 2 columns of the first line"),
    ],
)
def test_broken_record_is_an_item_and_reading_goes_on(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    good, broken = read(tmp_path, name)
    assert isinstance(good, dict)
    assert expected in broken


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b'[{"a": 1},\n{"a": }]', r"a\.json:2: is not valid JSON"),
        ("a.json", b'[{"a": "\xff"}]', r"a\.json:1: byte 0xff after '\[{\"a\": \"' is not UTF-8"),
        ("a.csv", b'a,b\n1,"2\n', r"a\.csv:\d: is not valid CSV"),
        ("a.csv", b"a,\xff\n1,2\n", r"a\.csv:1: byte 0xff after '' is not UTF-8"),
    ],
)
def test_broken_file_is_an_error(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RowError) as caught:
        read(tmp_path, name)
    assert caught.match(expected)


def names(path: str, folder: Path) -> list[str]:
    return [Path(file.path).name for file in find(path, folder).files]


def test_folder_and_pattern_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.txt", "notes.md"):
        (tmp_path / name).write_text(f'{{"n": "{name}"}}\n')
    assert names(".", tmp_path) == ["a.jsonl", "b.jsonl", "c.txt"]
    assert names("*.jsonl", tmp_path) == ["a.jsonl", "b.jsonl"]
    assert names(str(tmp_path / "*.jsonl"), Path()) == ["a.jsonl", "b.jsonl"]
    (tmp_path / "x[1].jsonl").write_text("{}")
    assert names("x[1].jsonl", tmp_path) == ["x[1].jsonl"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nowhere.jsonl", "there is no file"),
        ("*.jsonl", "finds no file"),
        ("empty", "finds no file"),
        ("a.md", r"a\.md has an unknown ending, expected \.jsonl, \.json"),
        ("https://me:secret@example.com/a.md?key=secret", r"a\.md has an unknown ending"),
        ("file:///a.jsonl", "found file://, expected the path"),
        ("ftp://me:secret@example.com/a.jsonl", "found ftp://, expected one of s3://"),
        ("fifo.jsonl", "is not a regular file"),
    ],
)
def test_paths_that_give_nothing(tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.md").write_text("a")
    if path == "fifo.jsonl":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no FIFOs")
        os.mkfifo(tmp_path / path)
    with pytest.raises(RecipeError, match=expected) as caught:
        read(tmp_path, path)
    assert caught.value.place == "data.0.path"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", "\n\n"), ("a.json", "[]"), ("a.csv", "a,b\n"), ("a.txt", "")]
)
def test_file_without_records(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read(tmp_path, name) == []


# ---- cut off, or in another encoding -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": "bcd'),
        ("a.jsonl", '{"a": 1}\n{"a": [1,\n'),
        ("a.json", '[{"a": 1},\n{"a": "bcd'),
        ("a.json", '[{"a": 1},\n{"a": 2}'),
    ],
)
def test_a_file_that_was_cut_off_is_reported(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    try:
        said = read(tmp_path, name)[-1]
    except RowError as error:
        said = str(error)
    assert f"{name}:2: is not valid JSON" in said
    assert "the file ends in the middle of a record (it seems to have been cut off" in said


def test_a_broken_record_in_the_middle_is_not_called_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{\n"a": 1\n}\n')
    first = read(tmp_path, "a.jsonl")[0]
    assert "a.jsonl:1: is not valid JSON" in first
    assert "cut off" not in first
    assert "(a record stands in one line)" in first


@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "utf-16", "cp1251"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "txt"])
def test_text_in_another_encoding(tmp_path: Path, encoding: str, ending: str) -> None:
    word = {"latin-1": "Café", "gbk": "咖啡", "utf-16": "Café 咖啡", "cp1251": "Кофе"}[encoding]
    text = {"csv": f"a,b\n1,{word}\n", "jsonl": f'{{"a": "1", "b": "{word}"}}\n', "txt": word}[
        ending
    ]
    (tmp_path / f"a.{ending}").write_bytes(text.encode(encoding))
    expected = word if ending == "txt" else {"a": "1", "b": word}
    found = files.read(find(f"a.{ending}", tmp_path, encoding=encoding).files, MAX_RECORD_BYTES)
    assert [item[1] for item in found if not isinstance(item, RowError)] == [expected]


def test_text_that_is_not_in_the_encoding_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Café".encode()[:-1] + b"\n")
    found = files.read(find("a.txt", tmp_path, encoding="gbk").files, MAX_RECORD_BYTES)
    with pytest.raises(RowError, match=r"a\.txt: is not gbk: 'gbk' codec can't decode"):
        list(found)


@pytest.mark.parametrize("encoding", ["latin1", "base64", "klingon"])
def test_encodings_are_known(encoding: str) -> None:
    if encoding == "latin1":
        assert Entry(path="a", encoding=encoding).encoding == "iso8859-1"
        return
    with pytest.raises(ValueError, match=f"there is no encoding '{encoding}'"):
        Entry(path="a", encoding=encoding)


def test_tables_of_numbers_have_no_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"a\.parquet is no text, and has no encoding 'gbk'"):
        find("a.parquet", tmp_path, encoding="gbk")


def test_carriage_returns_alone_end_lines_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\r1,2\r3,4\r")
    assert read(tmp_path, "a.csv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


# ---- paths that this machine cannot look at ------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~nosuchuserhere/a.jsonl", "the home folder in '~nosuchuserhere/a.jsonl' is not known"),
        ("a" * 5000, "cannot be looked at: File name too long"),
        ("b/" * 2500 + "*.jsonl", "cannot be looked at: File name too long"),
    ],
)
def test_paths_that_cannot_be_looked_at(tmp_path: Path, path: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected) as caught:
        find(path, tmp_path)
    assert caught.value.place == "data.0.path"
    assert len(str(caught.value)) < 500
