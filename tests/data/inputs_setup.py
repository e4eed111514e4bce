"""Records in files of every kind, and what is read of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright import RowError
from tunewright_dataset_chat import files
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES

RECORDS = [{"instruction": f"a {n} “ß”", "output": "b"} for n in range(3)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def find(folder: Path, path: str) -> list[files.File]:
    return files.find(path, folder, files.Wanted("data.0.path")).files


def read(folder: Path, path: str, split: str | None = None) -> list[Any]:
    wanted = files.Wanted("data.0.path", split)
    found = files.read(files.find(path, folder, wanted).files, MAX_RECORD_BYTES)
    return [str(item) if isinstance(item, RowError) else item[1] for item in found]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    import datasets

    data = datasets.Dataset.from_list(RECORDS)
    data.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "both")
    datasets.DatasetDict({"held": data.select([1])}).save_to_disk(tmp_path / "held")
    return tmp_path
