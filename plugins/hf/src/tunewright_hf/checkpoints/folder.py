"""Checkpoint folders `step-N`: they appear whole or not at all, and say themselves what is in them.

A checkpoint is written into a temporary folder beside its place. Its manifest.json (size and
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
from tunewright_hf.checkpoints.state_codec import load_state, save_state

__all__ = [
    "checkpoints",
    "is_complete",
    "latest_checkpoint",
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
    """Make the folder a checkpoint of what `writer` puts into the path that it is given, on every
    process.

    facts: what the manifest says besides the files: step, world_size. barrier: waits for the other
    processes. Raises RunError, the disk being full or read-only, and leaves other checkpoints as
    they were.
    """

    def write(temporary: Path) -> None:
        barrier()  # the folder is there
        writer(temporary)
        barrier()  # every process has written its part
        if rank == 0:
            files = {
                path.relative_to(temporary).as_posix(): path
                for path in temporary.rglob("*")
                if path.is_file()
            }
            listed = {
                name: {"size": path.stat().st_size, "sha256": _digest(path)}
                for name, path in files.items()
            }
            text = json.dumps({"format": 1, **facts, "files": listed}, indent=1)
            (temporary / MANIFEST).write_text(text, encoding="utf-8")

    write_folder(folder, write, rank=rank)
    barrier()


def write_folder(folder: Path, writer: Callable[[Path], None], *, rank: int = 0) -> None:
    """Put what `writer` writes in the place of `folder` in one step. On other ranks than 0, only
    the writer runs.

    Raises RunError where the disk cannot take it: then the folder is as it was.
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


def step_folders(folder: Path) -> list[Path]:
    """Checkpoints below the folder, oldest step first, damaged ones too. Without a manifest it is
    none: it was being removed."""
    steps = {
        int(path.parent.name[5:]): path.parent
        for path in folder.glob(f"step-*/{MANIFEST}")
        if path.parent.name[5:].isdecimal()
    }
    return [steps[step] for step in sorted(steps)]


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below the folder, oldest step first."""
    return [path for path in step_folders(folder) if is_complete(path)]


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint of the latest step; None where there is none."""
    return next(reversed(checkpoints(folder)), None)


def rotate(folder: Path, keep: int, best: int | None = None) -> None:
    """Remove all but the newest complete checkpoints. best: the step of one that stays, as one of
    those `keep`; the newest stays beside it, however few are kept."""
    found = checkpoints(folder)
    precious = {path for path in found if path.name == f"step-{best}"} | set(found[-1:])
    others = [path for path in found if path not in precious]
    for old in others[: max(0, len(found) - max(keep, len(precious)))]:
        (old / MANIFEST).unlink()  # first: what is half removed is no checkpoint any more
        shutil.rmtree(old)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, after every file was found to be what it says. Raises RunError."""
    if not is_complete(folder):
        raise RunError("is not complete", place=str(folder), hint=_HELP)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, facts in manifest["files"].items():
        if _digest(folder / name) != facts["sha256"]:
            problem = "is not what was written (SHA-256 differs)"
            raise RunError(problem, place=str(folder / name), hint=_HELP)
    return manifest


def is_complete(folder: Path) -> bool:
    """Whether the folder is there, with a manifest and files of the sizes that it says."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == facts["size"] for name, facts in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the disk really hold a file or, where the system can (not Windows), a folder's
    entries."""
    if os.name == "nt" and path.is_dir():
        return
    flags = (
        os.O_RDONLY if os.name != "nt" else os.O_RDWR
    )  # Windows syncs only what is open for writing
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
