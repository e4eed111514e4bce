"""Data sets in a local folder, in the layouts in which benchmarks are published.

For a data set such as cais/mmlu with the subset anatomy, in FOLDER/cais/mmlu, FOLDER/mmlu, FOLDER,
or `data` below one of them:

- dev/anatomy_dev.csv, test/anatomy_test.csv (MMLU, without a header; C-Eval, with one)
- dev/agronomy.csv, test/agronomy.csv (CMMLU)
- anatomy/dev-00000-of-00001.parquet (Hugging Face)
- otherwise any folder that `datasets.load_dataset` reads
"""

import csv
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from tunewright import RecipeError, RunError

_SPLITS = ("train", "auxiliary_train", "dev", "val", "validation", "test")
_FORMATS = {"parquet": "parquet", "jsonl": "json", "json": "json", "arrow": "arrow", "csv": "csv"}
_LETTERS = "ABCD"
Load = Callable[..., Any]


@contextmanager
def local_data(folder: Path | None) -> Iterator[None]:
    """Let `datasets.load_dataset` read this folder inside the context; None: as it is."""
    if folder is None:
        yield
        return
    if not folder.is_dir():
        raise RecipeError("there is no such folder", place=f"data_folder: {folder}")
    original: Load = datasets.load_dataset

    def load(path: str, name: str | None = None, **more: Any) -> Any:
        found = load_local(folder, path, name, original)
        split = more.get("split")
        return found if split is None else found[split]

    datasets.load_dataset = load
    try:
        yield
    finally:
        datasets.load_dataset = original


def load_local(folder: Path, path: str, name: str | None, original: Load) -> Any:
    """Splits of a data set. Raises RunError if the folder does not have it."""
    own = _own_folders(folder, path)
    for base in (base for each in (*own, folder) for base in (each, each / "data")):
        found = {split: files for split in _SPLITS if (files := _files(base, split, name))}
        if found:
            splits = {split: _read(files, name, original) for split, files in found.items()}
            if "val" in splits:
                splits.setdefault("validation", splits["val"])
            return datasets.DatasetDict(splits)
    for base in (each for each in own if each.is_dir()):
        try:
            return original(str(base), name)
        except Exception as error:  # whatever the library meets in a stranger's folder
            said = " ".join(str(error).split())[:300]
            raise RunError(f"cannot be read: {said}", place=str(base)) from error
    what = path if name is None else f"{path}, subset {name}"
    tried = name or "*"
    hint = f"looked for {folder}/dev/{tried}*.csv and {folder}/{path}/{tried}/dev-*.parquet"
    raise RunError(f"has no files of {what}", place=f"data_folder: {folder}", hint=hint)


def folder_digest(folder: Path) -> str:
    """Digest of the names, sizes and times of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state = path.stat()
            told = (path.relative_to(folder).as_posix(), state.st_size, state.st_mtime_ns)
            digest.update(repr(told).encode())
    return digest.hexdigest()


def _own_folders(folder: Path, path: str) -> list[Path]:
    """Folders that are named after the data set, best first."""
    if any(part in ("", "..") for part in path.split("/")):
        return []
    return list(dict.fromkeys([folder / path, folder / path.rpartition("/")[2]]))


def _files(base: Path, split: str, name: str | None) -> list[Path]:
    """Files of a split, in the first layout that is there."""
    for ending in _FORMATS:
        if name is None:
            patterns = [f"{split}-*.{ending}", f"{split}.{ending}", f"{split}/*.{ending}"]
        else:
            patterns = [
                f"{name}/{split}-*.{ending}",
                f"{name}/{split}.{ending}",
                f"{split}/{name}_{split}.{ending}",
                f"{split}/{name}.{ending}",
            ]
        for pattern in patterns:
            if found := sorted(path for path in base.glob(pattern) if path.is_file()):
                return found
    return []


def _read(files: list[Path], name: str | None, original: Load) -> Any:
    form = _FORMATS[files[0].suffix.removeprefix(".")]
    if form == "csv":
        rows = [row for file in files for row in _csv_rows(file, name)]
        return datasets.Dataset.from_list(rows)
    paths = [str(file) for file in files]
    return original(form, data_files={"rows": paths}, split="rows")


def _csv_rows(file: Path, name: str | None) -> list[dict[str, Any]]:
    """Rows with texts as they are written: a column of 1 and 2 stays text, as it is published."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = [line for line in csv.reader(opened) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"cannot be read as CSV in UTF-8: {error}", place=str(file)) from error
    if not lines:
        return []
    named = any(cell.strip().lower() == "question" for cell in lines[0])
    if not named and len(lines[0]) == 6 and lines[0][5].strip() in _LETTERS:  # MMLU has no header
        return [_mmlu_row(line, name, file, number) for number, line in enumerate(lines, 1)]
    header = lines[0]
    return [
        {key: value for key, value in zip(header, line, strict=False) if key} for line in lines[1:]
    ]


def _mmlu_row(line: list[str], name: str | None, file: Path, number: int) -> dict[str, Any]:
    if len(line) != 6 or line[5].strip() not in _LETTERS or not line[5].strip():
        problem = "expected question, A, B, C, D and the letter of the answer"
        raise RunError(problem, place=f"{file}:{number}")
    question, *choices, answer = line
    index = _LETTERS.index(answer.strip())
    return {"question": question, "subject": name, "choices": choices, "answer": index}
