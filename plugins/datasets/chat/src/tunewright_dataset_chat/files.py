"""Files to records: lazily, one by one, each with the place that it came from."""

import csv
import glob
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from tunewright import RecipeError, RowError
from tunewright.types import Origin

#: a record, or the reason why this place of a file holds none
Read: TypeAlias = tuple[Origin, Any] | RowError


def find(path: str, root: Path, place: str) -> list[Path]:
    """The files that a path of the recipe stands for, sorted. Raises RecipeError where there are none."""
    if "://" in path:
        raise RecipeError("is a URL, expected a file on this machine", place=place, hint="download it first")
    start = root / Path(path).expanduser()
    if start.is_dir():
        found = [file for file in start.iterdir() if file.suffix in READERS]
    elif start.exists() or not glob.has_magic(path):
        found = [start]
    else:
        # not Path.glob, which takes no pattern from the root of the file system
        found = [Path(file) for file in glob.glob(str(start), recursive=True)]  # noqa: PTH207
    if not found:
        raise RecipeError(f"finds no file: {start}", place=place, hint=f"known are {', '.join(READERS)}")
    for file in found:
        if not file.exists():
            raise RecipeError(f"there is no file {file}", place=place)
        if not file.is_file():
            raise RecipeError(f"{file} is not a regular file", place=place)
        if file.suffix not in READERS:
            known = ", ".join(READERS)
            raise RecipeError(f"{file.name} has an unknown ending, expected {known}", place=place)
    return sorted(found)


def read(files: list[Path]) -> Iterator[Read]:
    """The records of all files, in order. Raises RowError where a file cannot be read on."""
    for file in files:
        yield from READERS[file.suffix](file, _shown(file))


def _shown(file: Path) -> str:
    """The file as an error names it: from the current folder where it is below it."""
    full = file.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(file)


def _json_lines(file: Path, name: str) -> Iterator[Read]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield Origin(name, number), json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield _broken(name, number, error)


def _json(file: Path, name: str) -> Iterator[Read]:
    """A list of records; a file that begins otherwise is read as JSON lines, which many call .json."""
    with file.open("rb") as start:
        first = start.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first != b"[":
        yield from _json_lines(file, name)
        return
    try:
        records = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise _broken(name, error.lineno, error) from error
    except (ValueError, RecursionError) as error:
        raise _broken(name, 1, error) from error
    for number, record in enumerate(records, 1):
        yield Origin(name, number), record


def _broken(name: str, line: int, error: Exception) -> RowError:
    return RowError(f"is not valid JSON: {error}", place=f"{name}:{line}")


def _csv(file: Path, name: str) -> Iterator[Read]:
    csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is less than a long document
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
        try:
            for record in rows:
                if None in record or None in record.values():  # too many cells, or too few
                    problem = f"does not have the {len(rows.fieldnames or ())} columns of the first line"
                    yield RowError(problem, place=f"{name}:{rows.line_num}")
                else:
                    yield Origin(name, rows.line_num), record
        except (csv.Error, UnicodeDecodeError) as error:
            raise RowError(f"is not valid CSV: {error}", place=f"{name}:{rows.line_num}") from error


def _parquet(file: Path, name: str) -> Iterator[Read]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 1
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=1000):
            for record in batch.to_pylist():
                yield Origin(name, number), record
                number += 1
    except pyarrow.ArrowException as error:
        raise RowError(f"is not valid Parquet: {error}", place=name) from error


def _text(file: Path, name: str) -> Iterator[Read]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                    yield Origin(name, number), text.rstrip("\r\n")
                except UnicodeDecodeError as error:
                    yield RowError(f"is not valid UTF-8: {error}", place=f"{name}:{number}")


READERS: dict[str, Callable[[Path, str], Iterator[Read]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}
