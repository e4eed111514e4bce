"""From a path of the recipe to files, and from these to records."""

import glob
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RowError
from tunewright.errors import did_you_mean
from tunewright_dataset_chat import remote
from tunewright_dataset_chat.readers import PLAIN, READERS, Read

_PACKED = (".gz", ".zst")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")
_BESIDE = (
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
)  # tell of data, hold none
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "blob_id",
    "generation",
)  # a store's own names for its bytes


@dataclass(frozen=True)
class File:
    """One file of a source. Small, and can be sent to another process."""

    path: str  # on this machine, or in its store
    name: str  # as errors and rows show it
    kind: str  # its ending, without that of the packing
    packed: str = ""  # .gz, .zst, or nothing
    store: Any = None  # fsspec.AbstractFileSystem of a file elsewhere

    @contextmanager
    def open(self) -> Iterator[BufferedReader]:
        """Its bytes, unpacked."""
        with self._stored() as raw:
            if self.packed == ".gz":
                yield BufferedReader(gzip.GzipFile(fileobj=raw))  # type: ignore[arg-type]  # has all that is needed
            elif self.packed == ".zst":
                import pyarrow as pa

                yield BufferedReader(pa.CompressedInputStream(raw, "zstd"))
            else:
                yield raw if isinstance(raw, BufferedReader) else BufferedReader(raw)

    def _stored(self) -> Any:
        return self.store.open(self.path, "rb") if self.store else Path(self.path).open("rb")

    def digest(self) -> str:
        """Changes with the bytes: their sha256, or what the store calls this version of them."""
        if self.store:
            info = self.store.info(self.path)
            if versions := {key: str(info[key]) for key in _VERSIONS if info.get(key)}:
                known = json.dumps([info.get("size"), versions], sort_keys=True)
                return hashlib.sha256(known.encode()).hexdigest()
        with self._stored() as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class Found:
    files: list[File]  # in order
    aside: list[str]  # names of files in the folder that no reader is for


def find(path: str, root: Path, place: str, split: str | None = None) -> Found:
    """The files that a path of the recipe stands for. Raises RecipeError where there are none.

    split: of a data set that `save_to_disk` wrote; other files have no splits but train.
    """
    if remote.is_url(path):
        return _far(path, place, split)
    start = root / Path(path).expanduser()
    if start.is_dir():
        names = sorted(_below(start))
        kept, aside = _choose(names, lambda name: (start / name).read_bytes(), place, split)
        return Found(_checked([start / name for name in kept], start, place), aside)
    _no_split(split, place)
    if start.exists() or not glob.has_magic(path):
        return Found(_checked([start], start, place), [])
    # not Path.glob, which takes no pattern from the root of the file system
    found = [Path(file) for file in glob.glob(str(start), recursive=True)]  # noqa: PTH207
    return Found(_checked(sorted(file for file in found if not file.is_dir()), start, place), [])


def read(files: list[File]) -> Iterator[Read]:
    """The records of all files, in order. Raises RowError where a file cannot be read on."""
    for file in files:
        try:
            with file.open() as stream:
                yield from READERS[file.kind](stream, file.name)
        except (
            OSError,
            EOFError,
            zlib.error,
        ) as error:  # broken packing, or a broken line to the store
            raise RowError(f"cannot be read to its end: {error}", place=file.name) from error


# ---- on this machine -----------------------------------------------------------------------------


def _below(folder: Path) -> Iterator[str]:
    """All files of a folder and of those in it, from it, without what is hidden. Links to folders
    are not followed."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(parent, name).relative_to(folder).as_posix()


def _checked(found: list[Path], start: Path, place: str) -> list[File]:
    if not found:
        raise RecipeError(
            f"finds no file: {start}", place=place, hint=f"known are {', '.join(READERS)}"
        )
    for file in found:
        if not file.exists():
            raise RecipeError(f"there is no file {file}", place=place)
        if not file.is_file():
            raise RecipeError(f"{file} is not a regular file", place=place)
    return [File(str(file), _shown(file), *ending(file.name, place)) for file in found]


def _shown(file: Path) -> str:
    """The file as an error names it: from the current folder where it is below it."""
    full = file.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(file)


# ---- elsewhere -----------------------------------------------------------------------------------


def _far(url: str, place: str, split: str | None) -> Found:
    shown = remote.shown(url)
    web = url.partition("://")[0].lower() in remote.WEB
    kind = ending(shown, place) if web else None  # what can be said without the network comes first
    store, path = remote.open_store(url, place)
    if kind:
        _no_split(split, place)
        return Found([File(path, shown, *kind, store)], [])
    try:
        if store.isdir(path):
            start = path.rstrip("/") + "/"
            every = sorted(name.removeprefix(start) for name in store.find(path))
            names = [
                name for name in every if not any(part.startswith(".") for part in name.split("/"))
            ]
            kept, aside = _choose(names, lambda name: store.cat_file(start + name), place, split)
            paths = [start + name for name in kept]
        else:
            _no_split(split, place)
            aside, paths = (
                [],
                sorted(store.glob(path)) if glob.has_magic(path) else [path] * store.exists(path),
            )
    except RecipeError:
        raise
    except Exception as error:  # every store's library has errors of its own
        raise remote.failed(url, error, place) from error
    if not paths:
        raise RecipeError(
            f"finds no file: {shown}", place=place, hint=f"known are {', '.join(READERS)}"
        )
    scheme = url.partition("://")[0]
    return Found(
        [
            File(path, f"{scheme}://{path.lstrip('/')}", *ending(path, place), store)
            for path in paths
        ],
        aside,
    )


# ---- what both have ------------------------------------------------------------------------------


def ending(name: str, place: str) -> tuple[str, str]:
    """Kind and packing by the name of a file. Raises RecipeError where it is not known."""
    kind, packed = _ending(name)
    if kind in READERS:
        return kind, packed
    last = name.replace("\\", "/").rpartition("/")[2]
    if _is_archive(name):
        hint = "unpack it, and give the folder"
        raise RecipeError(
            f"{last} is an archive, and archives are not opened", place=place, hint=hint
        )
    known = f"{', '.join(READERS)}, or one of {', '.join(PLAIN)} with {' or '.join(_PACKED)}"
    raise RecipeError(f"{last} has an unknown ending, expected {known}", place=place)


def _ending(name: str) -> tuple[str, str]:
    stem, dot, last = name.lower().rpartition(".")
    if (packed := dot + last) in _PACKED:
        kind = "." + stem.rpartition(".")[2]
        return (kind, packed) if kind in PLAIN else ("", "")
    return dot + last, ""


def _is_archive(name: str) -> bool:
    plain = name.lower()
    for packed in (*_PACKED, ".bz2", ".xz"):
        plain = plain.removesuffix(packed)
    return plain.endswith(_ARCHIVES)


def _choose(
    names: list[str], load: Callable[[str], bytes], place: str, split: str | None
) -> tuple[list[str], list[str]]:
    """Of all files of a folder, those to read, in order, and those that are left aside."""
    if (saved := _saved(names, load, place, split)) is not None:
        return saved, []
    _no_split(split, place)
    kept = [
        name
        for name in names
        if _ending(name)[0] in READERS and name.rpartition("/")[2] not in _BESIDE
    ]
    return kept, [name for name in names if name not in set(kept)]


def _saved(
    names: Collection[str], load: Callable[[str], bytes], place: str, split: str | None
) -> list[str] | None:
    """The Arrow files of a folder that `save_to_disk` wrote. They must be among its own: no path
    leads out."""
    prefix = ""
    if "dataset_dict.json" in names:
        splits = _json(load, "dataset_dict.json", "splits", place)
        chosen = split or ("train" if "train" in splits or len(splits) != 1 else splits[0])
        if chosen not in splits:
            found = ", ".join(map(str, splits))
            raise RecipeError(
                f"has no split {chosen!r}, only {found}",
                place=place,
                hint=did_you_mean(chosen, splits),
            )
        prefix = f"{chosen}/"
    elif "state.json" not in names or "dataset_info.json" not in names:
        return None
    else:
        _no_split(split, place)
    state = prefix + "state.json"
    files = [
        f"{prefix}{file.get('filename')}"
        for file in _json(load, state, "_data_files", place, of=dict)
    ]
    if missing := [name for name in files if name not in names]:
        raise RecipeError(f"{state} names {missing[0]!r}, which is not in the folder", place=place)
    return files


def _json(load: Callable[[str], bytes], name: str, key: str, place: str, of: type = str) -> Any:
    try:
        found = json.loads(load(name))[key]
        if isinstance(found, list) and all(isinstance(item, of) for item in found):
            return found
    except (ValueError, LookupError, TypeError, RecursionError, OSError):
        pass
    raise RecipeError(
        f"{name} has no list {key!r}", place=place, hint="`save_to_disk` of datasets writes it"
    )


def _no_split(split: str | None, place: str) -> None:
    if split not in (None, "train"):
        problem = f"has no split {split!r}: files have no splits"
        raise RecipeError(problem, place=place, hint="name the files of each split by their paths")
