"""Local paths in a recipe or a data set."""

import os
import tempfile
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from tunewright import RecipeError, RunError

_SHOWN = 200  # characters of a path in an error
_LOOKED_AT = 1000  # names of a folder, for one that is nearly right


def shown(path: object) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def resolve(root: Path, written: str, place: str) -> Path:
    """Resolve a path relative to `root`, with ~ expanded; it need not exist.

    Raises RecipeError if the system cannot access it: unknown home folder, name too long, no
    permission.
    """
    try:
        path = root / Path(written).expanduser()
        path.exists()
    except RuntimeError as error:  # raised by expanduser
        hint = "write the whole path"
        raise RecipeError(
            f"the home folder in {shown(written)!r} is not known", place=place, hint=hint
        ) from error
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise RecipeError(f"{shown(written)!r} cannot be looked at: {said}", place=place) from error
    return path


def instead(missing: Path) -> str:
    """Suggestion for a path that does not exist."""
    names: list[str] = []
    with suppress(OSError):
        names = [each.name for each in islice(missing.parent.iterdir(), _LOOKED_AT)]
    close = get_close_matches(missing.name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else "paths start at the folder of the recipe"


def leads_out(file: Path, folder: Path) -> bool:
    """Whether a file of a folder is a link to a file outside it.

    Links in a Hugging Face cache, from snapshots/REVISION to blobs beside it, are allowed.
    """
    target, base = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if target.is_relative_to(base):
        return False
    snapshots = next((each for each in (base, *base.parents) if each.name == "snapshots"), None)
    return snapshots is None or not target.is_relative_to(snapshots.parent / "blobs")


def cache(root: Path, named: str | None) -> tuple[Path, str]:
    """Cache folder for prepared rows, and a note about it. named: dataset.cache."""
    return (resolve(root, named, "dataset.cache"), "") if named else default_cache()


def default_cache() -> tuple[Path, str]:
    """Default cache folder for prepared rows, and a note about it.

    Without a home folder it is a folder of this user in the temporary folder.
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
    """Temporary folder that only this user can write: others could otherwise change the training
    data."""
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
