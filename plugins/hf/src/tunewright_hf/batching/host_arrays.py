"""Arrays that the ranks of one host compute once: the first writes them to files, and all map
these, so that the host's memory holds them once."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from tunewright.index import cache_folder
from tunewright_hf.batching.units import Units

__all__ = ["HostArrays", "host_arrays"]

#: rows from which it is worth files
MANY = 2**20
_OLD = 86_400  # seconds after which files of a run that was killed are removed

Arrays = dict[str, np.ndarray]


def host_arrays(facts: Any, rows: int) -> "HostArrays | None":
    """Shared arrays for this many rows; None where this rank is alone on its host, or they are
    few. facts: JSON values that say which rows these are."""
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1 or rows < MANY:
        return None
    return HostArrays(cache_folder() / "batches", facts)


@dataclass(frozen=True)
class HostArrays:
    """Arrays in a folder of this host, which other runs may use too. facts: all that they depend
    on, besides what `arrays` is given."""

    folder: Path
    facts: Any

    def units(self, facts: Any, make: Callable[[], Units]) -> Units:
        """`make()`, made by one rank of this host."""

        def arrays() -> Arrays:
            made = make()
            parts = {"rows": made.rows, "ends": made.ends, "order": made.order}
            return {name: part for name, part in parts.items() if part is not None}

        found = self.arrays(["units", facts], arrays)
        return Units(found["rows"], found.get("ends"), found.get("order"))

    def arrays(self, facts: Any, make: Callable[[], Arrays]) -> Arrays:
        """`make()`, made by one rank of this host, and mapped by all. facts: of these arrays."""
        text = json.dumps([self.facts, facts, np.__version__], sort_keys=True, default=str)
        place = self.folder / hashlib.sha256(text.encode()).hexdigest()[:32]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{place.name}.lock"):
                if not place.exists():
                    self._remove_old()
                    self._write(place, make())
                os.utime(place)
                return _mapped(place)
        except OSError:  # there is no room, or it may not write there
            return make()

    def _write(self, place: Path, made: Arrays) -> None:
        new = Path(tempfile.mkdtemp(prefix=".", suffix=".new", dir=self.folder))
        try:
            for name, array in made.items():
                np.save(new / f"{name}.npy", array)
            new.rename(place)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _remove_old(self) -> None:
        """Remove files that no run has asked for in a day: one that maps them keeps what it has."""
        for each in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - each.stat().st_mtime > _OLD:
                    shutil.rmtree(each) if each.is_dir() else each.unlink()


def _mapped(place: Path) -> Arrays:
    return {path.stem: np.load(path, mmap_mode="r") for path in place.glob("*.npy")}
