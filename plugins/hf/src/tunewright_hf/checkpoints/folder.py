"""Checkpoint folders `step-N`: written atomically, with a manifest.

A checkpoint is written to a temporary folder beside its final place. Its manifest.json (size and
SHA-256 of every file) is written last, then the folder is renamed. A folder without a manifest, or
with files of other sizes, is ignored.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tunewright import RunError
from tunewright_hf.checkpoints import being_copied
from tunewright_hf.checkpoints.state_codec import load_state, save_state

__all__ = [
    "checkpoints",
    "is_complete",
    "latest_checkpoint",
    "listed",
    "load_state",
    "rotate",
    "save_state",
    "step_folders",
    "verify",
    "write_checkpoint",
    "write_folder",
]

MANIFEST = "manifest.json"
_HELP = "restore this checkpoint, or begin a new run with --overwrite"


def write_checkpoint(
    folder: Path,
    writer: Callable[[Path], None],
    *,
    facts: dict[str, Any],
    rank: int = 0,
    barrier: Callable[[], None] = lambda: None,
) -> None:
    """Write a checkpoint folder: `writer` writes files to the path that it gets, on every rank.

    facts: further content of the manifest: step, world_size. barrier: waits for the other ranks.
    Raises RunError if the disk is full or read-only; other checkpoints stay unchanged.
    """

    def write(temporary: Path) -> None:
        barrier()  # the folder exists
        writer(temporary)
        barrier()  # every rank has written its files
        if rank == 0:
            text = json.dumps({"format": 1, **facts, "files": listed(temporary)}, indent=1)
            (temporary / MANIFEST).write_text(text, encoding="utf-8")

    write_folder(folder, write, rank=rank)
    barrier()


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of a folder, by its path below it."""
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return {
        name: {"size": path.stat().st_size, "sha256": _digest(path)} for name, path in files.items()
    }


def write_folder(folder: Path, writer: Callable[[Path], None], *, rank: int = 0) -> None:
    """Replace `folder` atomically by what `writer` writes. On ranks other than 0, only the writer
    runs.

    Raises RunError if the disk is full or fails; then the folder is unchanged.
    """
    temporary, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    try:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        writer(temporary)
        if rank == 0:
            for path in (*temporary.rglob("*"), temporary):
                _sync(path)
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(folder, old)
            os.replace(temporary, folder)
            _sync(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        hint = "what was saved before is intact; make room, then go on with --resume"
        raise RunError(f"cannot be written: {reason}", place=str(folder), hint=hint) from error
    except BaseException:  # the writer's own: what it has written so far is of no use
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def step_folders(folder: Path) -> list[Path]:
    """Checkpoint folders in order of steps, including damaged ones. A folder without a manifest
    does not count: it was being removed."""
    steps = {
        int(path.parent.name[5:]): path.parent
        for path in folder.glob(f"step-*/{MANIFEST}")
        if path.parent.name[5:].isdecimal()
    }
    return [steps[step] for step in sorted(steps)]


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in order of steps."""
    return [path for path in step_folders(folder) if is_complete(path)]


def latest_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint; None if there is none."""
    return next(reversed(checkpoints(folder)), None)


def rotate(folder: Path, keep: int, best: int | None = None) -> None:
    """Remove all but the newest `keep` complete checkpoints. best: step of a checkpoint that is
    kept as one of them; the newest is always kept too."""
    found = checkpoints(folder)
    precious = {path for path in found if path.name == f"step-{best}"} | set(found[-1:])
    others = [path for path in found if path not in precious]
    for old in others[: max(0, len(found) - max(keep, len(precious)))]:
        being_copied.wait_for(old)
        (old / MANIFEST).unlink()  # first, so that a half-removed folder is no checkpoint
        shutil.rmtree(old)


def verify(folder: Path) -> dict[str, Any]:
    """Verify size and digest of every file, and return the manifest. Raises RunError."""
    manifest = _manifest(folder)
    if not manifest or not is_complete(folder):
        raise RunError("is not complete", place=str(folder), hint=_HELP)
    for name, facts in manifest["files"].items():
        if _digest(folder / name) != facts["sha256"]:
            problem = "is not what was written (SHA-256 differs)"
            raise RunError(problem, place=str(folder / name), hint=_HELP)
    return manifest


def is_complete(folder: Path) -> bool:
    """Whether the folder exists, with a manifest and files of the sizes in it."""
    manifest = _manifest(folder)
    try:
        return bool(manifest) and all(
            (folder / name).stat().st_size == facts["size"]
            for name, facts in manifest["files"].items()
        )
    except (OSError, ValueError):
        return False


def _manifest(folder: Path) -> dict[str, Any]:
    """Content of the folder's manifest; empty if it is missing or damaged."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    files = found.get("files") if isinstance(found, dict) else None
    if not isinstance(files, dict) or not files:
        return {}
    is_good = all(
        isinstance(facts, dict)
        and isinstance(facts.get("size"), int)
        and isinstance(facts.get("sha256"), str)
        and not Path(name).is_absolute()
        and ".." not in Path(name).parts
        for name, facts in files.items()
    )
    return found if is_good else {}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Flush a file to disk or, if supported (not on Windows), a folder's entries."""
    if os.name == "nt" and path.is_dir():
        return
    # Windows syncs only files that are open for writing
    flags = os.O_RDONLY if os.name != "nt" else os.O_RDWR
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
