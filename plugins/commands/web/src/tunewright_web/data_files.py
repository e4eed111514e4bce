"""Data files of the workspace."""

import os
from collections.abc import Iterator
from pathlib import Path

from tunewright_web.workspace import Workspace

#: endings of data files; archives are not unpacked, so they are none
DATA_ENDS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather")
PACKED = (".gz", ".bz2", ".xz", ".zst")
_MOST = 200
_DEEP = 4  # levels of folders
#: folders that hold no data of the user, and files that are none
_NOT = ("runs", "node_modules", "__pycache__", "site-packages")
_NO_DATA = ("requirements.txt", "package.json", "recipe.schema.json")


def is_data(name: str) -> bool:
    """Whether a file's name ends as one of data."""
    for end in PACKED:
        name = name.removesuffix(end)
    return name.endswith(DATA_ENDS)


def data_files(workspace: Workspace) -> list[tuple[str, int]]:
    """Path and bytes of data files, at most 200."""
    found = []
    for file in _walk(workspace.root, _DEEP):
        if is_data(file.name) and file.name not in _NO_DATA and workspace.holds(file.resolve()):
            found.append((workspace.shown(file), file.stat().st_size))
        if len(found) == _MOST:
            break
    return sorted(found)


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Files of a folder, then of those in it; links to folders are not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    yield from (Path(entry.path) for entry in entries if entry.is_file() and entry.name[0] != ".")
    for entry in entries if depth else ():
        if entry.is_dir(follow_symlinks=False) and entry.name[0] != "." and entry.name not in _NOT:
            yield from _walk(Path(entry.path), depth - 1)
