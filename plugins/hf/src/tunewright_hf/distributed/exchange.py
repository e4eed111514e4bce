"""Values and files that rank 0 gives to all ranks, through the store in which they met: no shared
file system is needed, and no process group."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from tunewright.errors import LostRank
from tunewright_hf.distributed.lost import left, named
from tunewright_hf.distributed.meeting import check_in
from tunewright_hf.distributed.store import TO_ANSWER, open_store

__all__ = ["HostRanks", "from_rank_zero", "gather_files", "here"]

_CHUNK = 4 * 2**20  # bytes of a file that are sent at once
_numbers = count(1)  # of the exchanges of this process: all ranks have the same ones
_copies: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


class HostRanks:
    """Implements tunewright.ranks.Ranks."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def begin(self) -> None:
        check_in(self.run)

    def share(self, name: str, value: Any) -> Any:
        return from_rank_zero(self.run, name, value)

    def folder(self, path: Path) -> Path:
        found, copy = _received(self.run, path)
        if copy is not None:
            _copies.append(copy)
        return found


def from_rank_zero(run: Any, name: str, value: Any) -> Any:
    """Return rank 0's value, of JSON values, on all ranks. Raises RunError where it has ended."""
    if run.world_size == 1:
        return value
    exchange = _Exchange(run, name)
    if run.rank == 0:
        exchange.put("value", json.dumps(value).encode())
        return value
    return json.loads(exchange.get("value"))


@contextmanager
def here(run: Any, path: Path) -> Iterator[Path]:
    """Within, a folder with the files of rank 0's `path`: itself, or a copy on this host."""
    found, copy = _received(run, path)
    try:
        yield found
    finally:
        if copy is not None:
            copy.cleanup()


def gather_files(run: Any, folder: Path, write: Callable[[Path], None]) -> None:
    """Have every rank write small files, and put all of them into rank 0's folder.

    write: writes them to the folder that it gets, with names that differ between ranks.
    """
    if run.rank == 0:
        write(folder)
    if run.world_size == 1:
        return
    exchange = _Exchange(run, "files")
    if run.rank:
        with tempfile.TemporaryDirectory() as own:
            write(Path(own))
            files = {path.name: path.read_bytes().hex() for path in Path(own).iterdir()}
        exchange.put(f"rank {run.rank}", json.dumps(files).encode())
        return
    for rank in range(1, run.world_size):
        seconds = run.recipe.launch.timeout or TO_ANSWER
        for name, content in json.loads(exchange.get(f"rank {rank}", seconds, rank)).items():
            (folder / Path(name).name).write_bytes(bytes.fromhex(content))
        exchange.delete(f"rank {rank}")


class _Exchange:
    """Keys of one exchange in the store of all ranks."""

    def __init__(self, run: Any, name: str) -> None:
        self.store, self.base = open_store(run), f"tunewright/exchange {next(_numbers)} {name}"

    def put(self, key: str, content: bytes) -> None:
        self.store.set(f"{self.base}/{key}", content)

    def get(self, key: str, seconds: float | None = None, rank: int = 0) -> bytes:
        """Wait for the content of a key. seconds: that `rank`, which sets it, has; None: as long
        as it takes. Raises RunError where a rank has ended, or does not answer."""
        began = time.monotonic()
        with _naming_rank_zero():
            while not self.store.check([f"{self.base}/{key}"]):  # a `wait` would print warnings
                time.sleep(min(0.2, 0.001 + (time.monotonic() - began) / 10))  # seconds
                self._check_all_there()
                if seconds is not None and time.monotonic() - began > seconds:
                    hint = "go on with --resume, with as many processes as there are"
                    raise LostRank(f"lost {named(self.store, rank)}", place="launch", hint=hint)
            return bytes(self.store.get(f"{self.base}/{key}"))

    def count(self, key: str) -> None:
        self.store.add(f"{self.base}/{key}", 1)

    def wait_for(self, key: str, number: int) -> None:
        """Wait until so many ranks have counted."""
        began = time.monotonic()
        while self.store.add(f"{self.base}/{key}", 0) < number:
            time.sleep(min(0.2, (time.monotonic() - began) / 10))  # seconds
            self._check_all_there()

    def delete(self, key: str) -> None:
        self.store.delete_key(f"{self.base}/{key}")

    def _check_all_there(self) -> None:
        if gone := left(self.store):
            raise LostRank(gone, place="launch")


@contextmanager
def _naming_rank_zero() -> Iterator[None]:
    try:
        yield
    except torch.distributed.DistNetworkError as error:
        raise LostRank("rank 0 has ended: see what it said there", place="launch") from error


def _received(run: Any, path: Path) -> tuple[Path, tempfile.TemporaryDirectory[str] | None]:
    """The folder, and the copy that this process has made of it."""
    if run.world_size == 1:
        return path, None
    local, own = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    exchange, leader = _Exchange(run, f"folder {path.name}"), run.rank - local
    leaders = len(range(0, run.world_size, own))  # the first rank of each host
    if run.rank == 0:
        _send(exchange, path, leaders - 1)
        return path, None
    if leader == 0:  # on the same host
        exchange.get("sent")
        return path, None
    copy = None
    if local == 0:
        copy = _receive(exchange, path)
        exchange.put(f"path {leader}", (copy.name if copy else "").encode())
    there = exchange.get(f"path {leader}").decode()
    return Path(there) if there else path, copy


def _send(exchange: _Exchange, path: Path, receivers: int) -> None:
    """On rank 0: send the files to hosts that do not see them."""
    files = sorted(each for each in path.rglob("*") if each.is_file())
    names = [[each.relative_to(path).as_posix(), each.stat().st_size] for each in files]
    mark = path.parent / f".seen-{uuid4().hex}"  # by hosts that share the file system
    mark.touch()
    try:
        exchange.put("files", json.dumps({"files": names, "mark": mark.name}).encode())
        exchange.wait_for("answered", receivers)
    finally:
        mark.unlink(missing_ok=True)
    asking = exchange.store.add(f"{exchange.base}/asking", 0)
    for number, file in enumerate(files if asking else ()):
        with file.open("rb") as opened:
            for part in range(0, file.stat().st_size, _CHUNK):
                key = f"{number}/{part}"
                exchange.put(key, opened.read(_CHUNK))
                exchange.wait_for(f"{key} read", asking)
                exchange.delete(key)
    exchange.put("sent", b"1")


def _receive(exchange: _Exchange, path: Path) -> tempfile.TemporaryDirectory[str] | None:
    """On the first rank of another host: a copy of rank 0's folder; None where it sees it."""
    told = json.loads(exchange.get("files"))
    seen = (path.parent / told["mark"]).exists()
    if not seen:
        exchange.count("asking")
    exchange.count("answered")
    if seen:
        return None
    copy = tempfile.TemporaryDirectory(prefix="tunewright-")
    for number, (name, size) in enumerate(told["files"]):
        file = Path(copy.name, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as opened:
            for part in range(0, size, _CHUNK):
                opened.write(exchange.get(f"{number}/{part}"))
                exchange.count(f"{number}/{part} read")
    exchange.get("sent")
    return copy
