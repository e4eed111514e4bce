"""Find the files of a source, and read their records."""

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RowError
from tunewright.urls import is_url
from tunewright_dataset_chat import local_paths, remote, splits, unpacking
from tunewright_dataset_chat.endings import can_read, ending
from tunewright_dataset_chat.readers import PLAIN, READERS, Read

# version identifiers in stores' metadata
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "blob_id",
    "generation",
)
_TOLD = 1 << 24  # bytes read of a file that describes others
_UTF8 = "utf-8"


@dataclass(frozen=True)
class File:
    """A file of a source. Small, and can be sent to another process."""

    path: str  # on this machine, or in its store
    name: str  # as shown in errors and rows
    kind: str  # its extension, without that of the compression
    packed: str = ""  # .gz, .bz2, .xz, .zst, or empty
    store: Any = None  # fsspec.AbstractFileSystem of a remote file
    encoding: str = _UTF8  # of text

    @contextmanager
    def open(self) -> Iterator[BufferedReader]:
        """Open the file, decompressed; text is converted to UTF-8."""
        with self._stored() as raw:
            stream = unpacking.unpacked(raw, self.packed)
            yield stream if self.encoding == _UTF8 else unpacking.recoded(stream, self.encoding)

    def _stored(self) -> Any:
        return self.store.open(self.path, "rb") if self.store else Path(self.path).open("rb")

    def size(self) -> int:
        """Stored bytes; 0 where the store does not say."""
        if self.store:
            return int(self.store.info(self.path).get("size") or 0)
        return Path(self.path).stat().st_size

    def digest(self) -> str:
        """Digest of the content: its sha256, or the store's version identifier."""
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
    notes: list[str] = field(default_factory=list)  # about files that were left out


@dataclass(frozen=True)
class Wanted:
    """Settings of a source that apply to its path."""

    place: str  # in the recipe, for errors
    split: str | None = None
    subset: str | None = None
    encoding: str = _UTF8

    def choose(self, names: list[str], load: Callable[[str], bytes]) -> splits.Chosen:
        return splits.choose(names, load, self.place, self.split, self.subset, can_read)

    def matched(self, names: list[str]) -> splits.Chosen:
        """The files of a pattern, restricted to the split if one is named."""
        self.only_folders()
        if self.split:
            return splits.by_names(names, self.place, self.split)
        several = sorted({splits.split_of(name) for name in names})
        note = f"the pattern takes files of several splits: {', '.join(several)}"
        return splits.Chosen(names, [note] * (len(several) > 1))

    def only_folders(self) -> None:
        if self.subset is not None:
            raise RecipeError(
                f"files have no subset {self.subset!r}", place=self.place, hint="leave it out"
            )

    def one_file(self) -> None:
        """Raise RecipeError if a split of a single file is requested."""
        self.only_folders()
        if self.split not in (None, splits.TRAIN):
            problem = f"has no split {self.split!r}: one file has no splits"
            hint = "name the file of each split by its path"
            raise RecipeError(problem, place=self.place, hint=hint)


def find(path: str, root: Path, wanted: Wanted) -> Found:
    """Find the files of a path in the recipe. Raises RecipeError if there are none, or a link in a
    folder leads out of it."""
    if is_url(path):
        return _far(path, wanted)
    start = local_paths.resolve(root, path, wanted.place)
    if start.is_dir():
        chosen = wanted.choose(sorted(_below(start)), lambda name: _told(start, name, wanted))
        found = [_held(start / name, start, wanted) for name in chosen.files]
    elif start.exists() or not glob.has_magic(path):
        wanted.one_file()
        chosen, found = splits.Chosen([]), [start]
    else:
        above = _without_pattern(start)
        # not Path.glob, which does not accept absolute patterns
        every = [Path(file) for file in glob.glob(str(start), recursive=True)]  # noqa: PTH207
        names = sorted(os.path.relpath(file, above) for file in every if not file.is_dir())
        chosen = wanted.matched(names)
        found = [_held(above / name, above, wanted) for name in chosen.files]
    return Found(_checked(found, start, wanted), chosen.notes)


def read(files: list[File], limit: int) -> Iterator[Read]:
    """Read the records of all files, in order. limit: bytes per record. Raises RowError if a file
    is damaged."""
    for file in files:
        try:
            with file.open() as stream:
                yield from READERS[file.kind](stream, file.name, limit)
        except UnicodeDecodeError as error:
            raise RowError(f"is not {file.encoding}: {error}", place=file.name) from error
        except unpacking.BROKEN as error:  # or the connection to the store broke
            said = " ".join(str(error).split()) or type(error).__name__
            raise RowError(f"cannot be read to its end: {said}", place=file.name) from error


# ---- on this machine -----------------------------------------------------------------------------


def _below(folder: Path) -> Iterator[str]:
    """All files below a folder, relative to it, without hidden ones. Links to folders are not
    followed."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(parent, name).relative_to(folder).as_posix()


def _without_pattern(path: Path) -> Path:
    """The folder that a pattern starts from."""
    plain = next(place for place, part in enumerate(path.parts) if glob.has_magic(part))
    return Path(*path.parts[:plain])


def _held(file: Path, folder: Path, wanted: Wanted) -> Path:
    """Return the file. Raises RecipeError if it links out of the folder: whoever made the folder
    could otherwise read any file of this machine."""
    if local_paths.leads_out(file, folder):
        raise RecipeError(
            f"{local_paths.shown(file)} is a link that leads out of {local_paths.shown(folder)}",
            place=wanted.place,
            hint="copy the file into the folder, or name it by its own path",
        )
    return file


def _told(folder: Path, name: str, wanted: Wanted) -> bytes:
    file = _held(folder / name, folder, wanted)
    if not file.is_file():  # reading a pipe would not end
        return b""
    with file.open("rb") as stream:
        return stream.read(_TOLD)


def _checked(found: list[Path], start: Path, wanted: Wanted) -> list[File]:
    place = wanted.place
    if not found:
        raise RecipeError(
            f"finds no file: {local_paths.shown(start)}",
            place=place,
            hint=f"known are {', '.join(READERS)}",
        )
    for file in found:
        if not file.exists():
            raise RecipeError(
                f"there is no file {local_paths.shown(file)}",
                place=place,
                hint=local_paths.instead(file),
            )
        if not file.is_file():
            raise RecipeError(f"{local_paths.shown(file)} is not a regular file", place=place)
    return [_file(str(file), _shown(file), file.name, wanted) for file in found]


def _shown(file: Path) -> str:
    """The file as shown in errors: relative to the current folder if it is below it."""
    full = file.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(file)


# ---- elsewhere -----------------------------------------------------------------------------------


def _far(url: str, wanted: Wanted) -> Found:
    shown, place = remote.shown(url), wanted.place
    web = url.partition("://")[0].lower() in remote.WEB
    if web:  # checks that need no network come first
        wanted.one_file()
        ending(shown, place)
    store, path = remote.open_store(url, place)
    if web:
        return Found([_file(path, shown, shown, wanted, store)])
    try:
        chosen, paths = _listed(store, path, wanted)
    except RecipeError:
        raise
    except Exception as error:  # each store's library has errors of its own
        raise remote.failed(url, error, place) from error
    if not paths:
        raise RecipeError(
            f"finds no file: {shown}", place=place, hint=f"known are {', '.join(READERS)}"
        )
    scheme = url.partition("://")[0]
    return Found(
        [
            _file(path, remote.shown(f"{scheme}://{path.lstrip('/')}"), path, wanted, store)
            for path in paths
        ],
        chosen.notes,
    )


def _listed(store: Any, path: str, wanted: Wanted) -> tuple[splits.Chosen, list[str]]:
    """The chosen files of a folder or pattern in a store, and all paths."""
    if store.isdir(path):
        start = path.rstrip("/") + "/"
        every = sorted(name.removeprefix(start) for name in store.find(path))
        names = [
            name for name in every if not any(part.startswith(".") for part in name.split("/"))
        ]
        chosen = wanted.choose(names, lambda name: store.cat_file(start + name, 0, _TOLD))
        return chosen, [start + name for name in chosen.files]
    if glob.has_magic(path):
        chosen = wanted.matched(sorted(store.glob(path)))
        return chosen, chosen.files
    wanted.one_file()
    return splits.Chosen([]), [path] * store.exists(path)


# ---- what both have ------------------------------------------------------------------------------


def _file(path: str, shown: str, name: str, wanted: Wanted, store: Any = None) -> File:
    kind, packed = ending(name, wanted.place)
    if wanted.encoding != _UTF8 and kind not in PLAIN:
        raise RecipeError(
            f"{shown} is no text, and has no encoding {wanted.encoding!r}",
            place=wanted.place,
            hint="leave `encoding` out",
        )
    return File(path, shown, kind, packed, store, wanted.encoding)
