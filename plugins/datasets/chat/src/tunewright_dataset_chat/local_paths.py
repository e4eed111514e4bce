"""Paths of this machine that a recipe or a data set names."""

import os
import tempfile
from pathlib import Path

from tunewright import RecipeError, RunError

_SHOWN = 200  # characters of a path in an error


def shown(path: object) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def resolve(root: Path, written: str, place: str) -> Path:
    """The path that is written, from `root`, with ~ expanded; there need be nothing.

    Raises RecipeError for what this machine cannot look at: a home folder that is not known, a
    name that is too long, a folder that may not be entered.
    """
    try:
        path = root / Path(written).expanduser()
        path.exists()
    except RuntimeError as error:  # of expanduser
        hint = "write the whole path"
        raise RecipeError(
            f"the home folder in {shown(written)!r} is not known", place=place, hint=hint
        ) from error
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise RecipeError(f"{shown(written)!r} cannot be looked at: {said}", place=place) from error
    return path


def leads_out(file: Path, folder: Path) -> bool:
    """Whether a file of a folder is, through links, one of another folder.

    The links of a Hugging Face cache lead from snapshots/REVISION to blobs beside it: they stay.
    """
    target, base = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if target.is_relative_to(base):
        return False
    snapshots = next((each for each in (base, *base.parents) if each.name == "snapshots"), None)
    return snapshots is None or not target.is_relative_to(snapshots.parent / "blobs")


def default_cache() -> tuple[Path, str]:
    """The folder for prepared rows where the recipe names none, and what has to be said of it.

    Without a home folder it is one of this user's in the folder for temporary files.
    """
    if named := os.environ.get("TUNEWRIGHT_CACHE"):
        return resolve(Path(), named, "TUNEWRIGHT_CACHE") / "data", ""
    try:
        return Path("~/.cache/tunewright").expanduser() / "data", ""
    except RuntimeError:
        folder = _own_temporary()
        note = (
            f"no home folder is known: prepared rows are kept in {folder} "
            "(TUNEWRIGHT_CACHE names another folder)"
        )
        return folder / "data", note


def _own_temporary() -> Path:
    """Folder that only this user can write: whoever could write it could choose what is trained."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"tunewright-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise RunError(
            f"no home folder is known, and {folder} cannot be made: {error.strerror}",
            hint="name a folder with TUNEWRIGHT_CACHE",
        ) from error
    if folder.is_symlink() or (user and (found.st_uid != user or found.st_mode & 0o022)):
        raise RunError(
            f"no home folder is known, and {folder} belongs to somebody else",
            hint="name a folder with TUNEWRIGHT_CACHE",
        )
    return folder
