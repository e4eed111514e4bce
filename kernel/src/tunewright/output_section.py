"""Section `output` of a recipe: a folder, or a folder with a mirror on an object store."""

from collections.abc import Iterator
from typing import Any

from tunewright.errors import Problem
from tunewright.urls import is_url


def unfold(value: dict[str, Any]) -> list[Problem]:
    """Change `output: {path: …, mirror: …}` to two values, and return its problems."""
    return list(_unfold(value))


def _unfold(value: dict[str, Any]) -> Iterator[Problem]:
    if "mirror" in value:
        del value["mirror"]
        yield Problem(("mirror",), "unknown key", "write output: {path: …, mirror: …}")
    written = value.get("output")
    if not isinstance(written, dict):
        return
    for key in written.keys() - {"path", "mirror"}:
        yield Problem(("output", key), "unknown key", "it has path and mirror")
    mirror = written.get("mirror")
    if isinstance(mirror, str) and is_url(mirror):
        value["mirror"] = mirror
    elif mirror is not None:
        problem = f"found {mirror!r:.80}, expected an address such as s3://bucket/run"
        yield Problem(("output", "mirror"), problem)
    if "path" in written:
        value["output"] = written["path"]
    else:
        del value["output"]


def folded(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a recipe, with the mirror below `output`."""
    mirror = values.get("mirror")
    kept = {key: item for key, item in values.items() if key != "mirror"}
    return kept | {"output": {"path": values["output"], "mirror": mirror}} if mirror else kept
