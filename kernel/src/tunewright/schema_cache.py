"""Cache of the recipe schema, valid while the installed plugins are unchanged."""

import contextlib
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from tunewright import index
from tunewright.terminal import printable


def schema() -> dict[str, Any]:
    """The recipe schema. Plugins that are left out are reported on standard error."""
    found = kept()
    if found is None:
        from tunewright import schema as maker

        left_out: list[str] = []
        found = {"schema": maker.schema(left_out), "left_out": left_out}
        index.keep(_file(), json.dumps(found))
    for said in found["left_out"]:
        print(printable(f"left out: {said}"), file=sys.stderr)
    return dict(found["schema"])


def kept() -> dict[str, Any] | None:
    """The cached `schema`, and `left_out`, a line for each plugin that is left out. None without a
    cache. Imports no plugin."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(_file().read_text("utf-8"))
        if isinstance(found, dict) and found.keys() == {"schema", "left_out"}:
            return found
    return None


def _file() -> Path:
    return index.cache_folder() / f"schema-{_key()}.json"


def _key() -> str:
    """Digest of the installed distributions, and of the sources of editable ones."""
    seen: list[Any] = [index.key()]
    for folder in map(Path, sys.path[1:]):  # the first is the script's folder, or the current one
        is_standard = folder.is_relative_to(sys.base_prefix)
        if not is_standard and folder.is_dir() and not any(folder.glob("*.dist-info")):
            seen += sorted((str(file), file.stat().st_mtime_ns) for file in folder.rglob("*.py"))
    return hashlib.blake2b(repr(seen).encode(), digest_size=16).hexdigest()
