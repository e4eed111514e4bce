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
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib import metadata

FORMAT = 1  # of the cached file
PREFIX = "tunewright."


@dataclass(frozen=True, slots=True)
class Point:
    """One entry point, with what its distribution's metadata says."""

    group: str  # without the prefix
    name: str
    value: str  # module:attribute, or a name
    distribution: str
    version: str
    summary: str
    requires: str = ""  # the version of the kernel that it asks for, such as >=0.1,<0.2

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
    key = _key()
    file = _cache_folder() / f"index-{key}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return tuple(Point(**point) for point in json.loads(file.read_text("utf-8")))
    found = tuple(_read())
    with contextlib.suppress(OSError):  # no home, or read-only: then each start reads all
        file.parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(file.parent.glob("index-*.json"), key=os.path.getmtime)[:-20]:
            old.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, delete=False, encoding="utf-8"
        ) as temporary:
            json.dump([asdict(point) for point in found], temporary)
        os.replace(temporary.name, file)
    return found


def _cache_folder() -> Path:
    """Raises RuntimeError never: without a home, a folder that cannot be written."""
    base = os.environ.get("TUNEWRIGHT_CACHE") or os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base) / "tunewright" if base else Path.home() / ".cache" / "tunewright"
    except RuntimeError:
        return Path(os.devnull)


def _key() -> str:
    """Digest of what the index depends on."""
    seen: list[Any] = [FORMAT, sys.version]
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            infos = [e for e in entries if e.name.endswith((".dist-info", ".egg-info"))]
            seen.append((folder, sorted((e.name, e.stat().st_mtime_ns) for e in infos)))
    return hashlib.blake2b(repr(seen).encode(), digest_size=16).hexdigest()


def _read() -> "list[Point]":
    from importlib import metadata

    found: list[Point] = []
    names: set[str] = set()
    for dist in metadata.distributions():
        text = _text(dist, "entry_points.txt")
        if PREFIX not in text:
            continue
        fields = _fields(dist)
        plain = fields["Name"].lower().replace("_", "-")
        if plain in names:  # shadowed by an earlier folder of sys.path
            continue
        names.add(plain)
        about = (fields["Name"], fields["Version"], fields["Summary"], fields["needs"])
        for group, name, value in _parsed(text):
            found.append(Point(group, name, value, *about))
    return found


def _text(dist: "metadata.Distribution", name: str) -> str:
    try:
        return dist.read_text(name) or ""
    except (OSError, UnicodeDecodeError):
        return ""


def _fields(dist: "metadata.Distribution") -> dict[str, str]:
    """Name, version, summary and requirement of the kernel. Of a distribution without METADATA, as
    a half-removed package has none, what its folder is called."""
    path = str(getattr(dist, "_path", ""))
    folder_name, _, folder_version = Path(path).stem.partition("-")
    found = {"Name": folder_name or "unknown", "Version": folder_version or "0", "Summary": ""}
    needs = ""
    for line in _text(dist, "METADATA").partition("\n\n")[0].splitlines():
        key, _, value = line.partition(": ")
        if key in found:
            found[key] = value
        elif key == "Requires-Dist" and _is_kernel(value):
            needs = value.partition(";")[0].strip()[len("tunewright") :].strip(" ()")
    return {**found, "needs": needs}


def _is_kernel(requirement: str) -> bool:
    name = requirement.partition(";")[0].strip()
    rest = name.removeprefix("tunewright")
    return rest != name and (not rest or rest[0] in " (<>=!~")


def _parsed(text: str) -> "list[tuple[str, str, str]]":
    """(group, name, value) of entry_points.txt; lines that are none are left out."""
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
