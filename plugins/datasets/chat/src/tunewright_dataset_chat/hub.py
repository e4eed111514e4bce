"""Data sets on a hub, through the hub's own library. Code of data sets is never run."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RowError
from tunewright_dataset_chat.arrow_reader import Read, records
from tunewright_hf.models.hub import disable_telemetry

_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
_BATCH = 1000  # records


def _hf(entry: Any, split: str, streaming: bool = False) -> Any:
    import datasets

    disable_telemetry()
    # this library no longer runs code of data sets
    return datasets.load_dataset(
        entry.path,
        entry.subset,
        split=split,
        data_dir=entry.folder,
        revision=entry.revision,
        streaming=streaming,
    )


def _modelscope(entry: Any, split: str) -> Any:
    from modelscope.msdatasets import MsDataset

    more = {"version": entry.revision} if entry.revision else {}
    found = MsDataset.load(
        entry.path,
        subset_name=entry.subset,
        split=split,
        data_dir=entry.folder,
        trust_remote_code=False,
        **more,
    )
    return found.to_hf_dataset() if isinstance(found, MsDataset) else found


def _modelers(entry: Any, split: str) -> Any:
    from openmind import OmDataset

    more = {"revision": entry.revision} if entry.revision else {}
    return OmDataset.load_dataset(
        entry.path, name=entry.subset, split=split, data_dir=entry.folder, **more
    )


#: hub → its library, its pip requirement, its load function
_HUBS: dict[str, tuple[str, str, Callable[[Any, str], Any]]] = {
    "hf": ("datasets", "datasets", _hf),
    "modelscope": ("modelscope", "modelscope", _modelscope),
    "modelers": ("openmind", "openmind openmind-hub", _modelers),
}


@dataclass
class HubData:
    """A data set on a hub. It is loaded at the first access."""

    entry: Any  # Entry
    place: str
    load: Callable[[Any, str], Any] | None = None  # None: as the hub's library does, to disk

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.entry.path):
            problem = (
                f"found {self.entry.path!r}, expected the name of a data set such as owner/name"
            )
            raise RecipeError(problem, place=f"{self.place}.path")
        if self.entry.hub == "hf" and Path(self.entry.path).exists():
            problem = f"{self.entry.path!r} is also a folder here, which the library would read"
            hint = "leave `hub` out to read the folder; or start from another folder"
            raise RecipeError(problem, place=f"{self.place}.path", hint=hint)
        library, package, _ = _HUBS[self.entry.hub]
        if find_spec(library) is None:
            raise RecipeError(
                f"{self.entry.hub} needs {package}", place=self.place, hint=f"pip install {package}"
            )

    @property
    def name(self) -> str:
        parts = (self.entry.path, self.entry.subset, self.entry.split or "train")
        return f"{self.entry.hub}:{'/'.join(filter(None, parts))}"

    @cached_property
    def _data(self) -> Any:
        try:
            return (self.load or _HUBS[self.entry.hub][2])(self.entry, self.entry.split or "train")
        except Exception as error:  # each library has its own errors, and those of its dependencies
            raise RecipeError(
                f"{self.name} cannot be loaded: {_said(error)}", place=self.place
            ) from error

    def streamed(self) -> "HubData":
        """The same data set, streamed record by record. Raises RecipeError if its library does not
        support it."""
        if self.entry.hub != "hf":
            hint = "leave streaming out, or download it and name its files"
            raise RecipeError(
                f"{self.entry.hub} does not stream", place=f"{self.place}.hub", hint=hint
            )
        return HubData(self.entry, self.place, partial(_hf, streaming=True))

    def read(self, limit: int) -> Iterator[Read]:
        """Read the records. limit: bytes per record. Raises RowError if reading fails."""
        data = self._data
        try:  # media are not decoded in Arrow's format
            batches = data.with_format("arrow").iter(batch_size=_BATCH)
            yield from records(batches, self.name, limit)
        except Exception as error:  # streamed records are downloaded while they are read
            raise RowError(f"cannot be read on: {_said(error)}", place=self.name) from error

    def digest(self) -> str:
        """Digest of the records: of the files in the library's cache, or of the records
        themselves."""
        digest = hashlib.sha256()
        if stored := self._data.cache_files:
            for name in sorted(file["filename"] for file in stored):
                with Path(name).open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            for item in self.read(sys.maxsize):
                assert isinstance(item, tuple)
                digest.update(json.dumps(item[1], sort_keys=True, default=str).encode())
        return digest.hexdigest()


def _said(error: Exception) -> str:
    """A library's error in one line."""
    return " ".join(str(error).split())[:500] or type(error).__name__
