"""Entry points of the installed distributions in the groups `tunewright.*`, from one cached index.

Reading the metadata of hundreds of distributions takes a tenth of a second and more. The index
holds what is needed of it, as JSON in the user's cache folder, keyed by the folders of sys.path and
the names and times of the metadata folders in them.
"""

import contextlib
import functools
import hashlib
import importlib
import json
import os
import re
import sys
import tempfile
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib import metadata

FORMAT = 2  # of the cached file
PREFIX = "tunewright."
#: a requirement on versions of a distribution of ours
_NEED = re.compile(r"(tunewright(?:-[\w-]+)?)(?:\[.*?\])?\s*\(?([<>=!~][^()]*?)\)?")


@dataclass(frozen=True, slots=True)
class Point:
    """One entry point, with metadata of its distribution."""

    group: str  # without the prefix
    name: str
    value: str  # module:attribute, or a name
    distribution: str
    version: str
    summary: str
    requires: str = ""  # required kernel version, such as >=0.1,<0.2
    siblings: str = ""  # required other distributions of ours: NAME>=0.1,<0.2;NAME…

    def load(self) -> Any:
        """Import the object. Raises what the import raises."""
        module, _, attributes = self.value.partition(":")
        found: Any = importlib.import_module(module)
        for attribute in filter(None, attributes.split(".")):
            found = getattr(found, attribute)
        return found


@functools.cache
def points() -> tuple[Point, ...]:
    """All entry points of the groups `tunewright.*`, in the order of sys.path."""
    file = cache_folder() / f"index-{key()}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        found = tuple(Point(**point) for point in json.loads(file.read_text("utf-8")))
        if all(isinstance(value, str) for point in found for value in astuple(point)):
            return found
    found = tuple(_read())
    keep(file, json.dumps([asdict(point) for point in found]))
    return found


def cache_folder() -> Path:
    """Folder for caches; without a home folder, one that is not writable."""
    base = os.environ.get("TUNEWRIGHT_CACHE") or os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base) / "tunewright" if base else Path.home() / ".cache" / "tunewright"
    except RuntimeError:
        return Path(os.devnull)


def environment_folder(name: str) -> Path:
    """Folder of an environment of `tunewright env create`."""
    own = os.environ.get("TUNEWRIGHT_ENVS")
    return (Path(own) if own else cache_folder() / "envs").absolute() / name


def keep(file: Path, text: str) -> None:
    """Write a cache file atomically, and remove old ones of its kind. If it cannot be written, its
    content is computed at each start."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        sort = file.name.partition("-")[0]
        for old in sorted(file.parent.glob(f"{sort}-*.json"), key=os.path.getmtime)[:-20]:
            old.unlink(missing_ok=True)
        number, temporary = tempfile.mkstemp(dir=file.parent, suffix=".new")
        try:
            with open(number, "w", encoding="utf-8") as opened:
                opened.write(text)
            os.replace(temporary, file)
        except OSError:
            Path(temporary).unlink()


@functools.cache
def key() -> str:
    """Digest of the installed distributions: a cache under this key is valid as long as they are
    unchanged."""
    seen: list[Any] = [FORMAT, sys.version]
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            infos = [e for e in entries if e.name.endswith((".dist-info", ".egg-info"))]
            if infos:
                seen.append((folder, sorted(map(_stamp, infos))))
    return hashlib.blake2b(repr(seen).encode(), digest_size=16).hexdigest()


def _stamp(info: "os.DirEntry[str]") -> tuple[str, int, int]:
    """Changes when files of the metadata folder come and go, or its entry points are edited."""
    try:
        points = Path(info.path, "entry_points.txt").stat().st_mtime_ns
    except OSError:
        points = 0
    return info.name, info.stat().st_mtime_ns, points


def _read() -> "list[Point]":
    from importlib import metadata

    found: list[Point] = []
    names: set[str] = set()
    for dist in metadata.distributions():
        text = _text(dist, "entry_points.txt")
        fields = _fields(dist) if PREFIX in text else {}
        plain = fields.get("Name", "").lower().replace("_", "-")
        if not plain or plain in names:  # half removed, or shadowed by an earlier folder
            continue
        names.add(plain)
        about = tuple(fields[key] for key in ("Name", "Version", "Summary", "needs", "siblings"))
        for group, name, value in _parsed(text):
            found.append(Point(group, name, value, *about))
    return found


def _text(dist: "metadata.Distribution", name: str) -> str:
    try:
        return dist.read_text(name) or ""
    except (OSError, UnicodeDecodeError):
        return ""


def _fields(dist: "metadata.Distribution") -> dict[str, str]:
    """Name, version, summary and what it requires of ours; empty without METADATA."""
    found = {"Name": "", "Version": "0", "Summary": "", "needs": "", "siblings": ""}
    siblings = []
    text = _text(dist, "METADATA") or _text(dist, "PKG-INFO")
    for line in text.partition("\n\n")[0].splitlines():
        field, _, value = line.partition(": ")
        if field in ("Name", "Version", "Summary"):
            found[field] = value
        elif field == "Requires-Dist":
            need, _, marker = value.partition(";")
            ours = _NEED.fullmatch(need.strip()) if "extra" not in marker else None
            if ours and ours[1] == "tunewright":
                found["needs"] = ours[2]
            elif ours:
                siblings.append(ours[1] + ours[2])
    return {**found, "siblings": ";".join(siblings)}


def _parsed(text: str) -> "list[tuple[str, str, str]]":
    """(group, name, value) of entry_points.txt; other lines are ignored."""
    found, group = [], ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            group = line.strip("[]")
        elif "=" in line and group.startswith(PREFIX) and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            value = value.partition("[")[0]  # extras
            found.append((group.removeprefix(PREFIX), name.strip(), value.strip()))
    return found
