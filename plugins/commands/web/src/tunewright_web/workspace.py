"""The workspace: one folder with recipes, data and runs, and what may be read besides it."""

import contextlib
import os
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tunewright_web.errors import WebError

__all__ = ["Workspace", "plain_name", "write_file"]

_LONGEST = 100  # characters of a name; in UTF-8 at most 200 bytes
_NEVER = set('/\\<>:"|?*')  # in a name: some systems give them a meaning


class Workspace:
    """Folders of the workbench, and the paths that requests may name.

    root: its folder; `runs/` holds the runs, `.tunewright/` jobs, drafts and the token. allowed:
    further folders from which models and data may be read. All links are resolved before a path is
    compared.
    """

    def __init__(self, root: Path, allowed: Sequence[Path] = ()) -> None:
        self.root = root.expanduser().resolve()
        self.allowed = tuple(path.expanduser().resolve() for path in allowed)
        self.runs = self.root / "runs"
        self.hidden = self.root / ".tunewright"
        self.jobs = self.hidden / "jobs"
        self.drafts = self.hidden / "drafts"
        self.uploads = self.root / "uploads"

    def create(self) -> None:
        """Make the folders. Raises OSError."""
        for folder in (self.runs, self.jobs, self.drafts):
            folder.mkdir(parents=True, exist_ok=True)
        self.hidden.chmod(0o700)

    def readable(self, text: str) -> Path:
        """An existing file or folder that a request may read, as an absolute path.

        A relative path starts at the workspace. Raises WebError; its text is the same whether the
        path exists elsewhere or not.
        """
        refused = WebError(
            f"{text!r:.200} is not in the workspace",
            "copy it there, upload it, or start the server with --allow FOLDER",
            status=403,
        )
        if not text or "\0" in text or "://" in text:
            raise refused
        try:
            path = Path(text).expanduser()
            found = (self.root / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise refused from error
        if not self.holds(found):
            raise refused
        try:
            found.stat()
        except OSError as error:
            raise WebError(f"there is no {text!r:.200}", status=404) from error
        return found

    def holds(self, path: Path) -> bool:
        """Whether a resolved path may be read: `.tunewright` may not."""
        if path.is_relative_to(self.hidden):
            return False
        return any(path.is_relative_to(folder) for folder in (self.root, *self.allowed))

    def run(self, name: str) -> Path:
        """Folder of an existing run. Raises WebError."""
        folder = self.runs / name
        if not _is_plain(name) or not folder.is_dir() or folder.is_symlink():
            raise WebError(f"there is no run {name!r:.200}", status=404)
        return folder

    def output(self, text: str) -> Path:
        """Folder of a new run, from `NAME` or `runs/NAME`. Raises WebError; it is never renamed."""
        name = text.removeprefix("runs/")
        plain_name(name, "output")
        return self.runs / name

    def shown(self, path: Path) -> str:
        """A path as a request may name it: relative to the workspace where it is in it."""
        with contextlib.suppress(ValueError):
            return path.relative_to(self.root).as_posix()
        return str(path)


def plain_name(name: str, what: str = "name") -> str:
    """The name, if it is one plain file name. Raises WebError."""
    if not _is_plain(name):
        hint = "one name of letters, digits, spaces and - _ . +, not beginning with . or -"
        raise WebError(f"{what}: {name!r:.120} is no name for a folder", hint, status=422)
    return name


def _is_plain(name: str) -> bool:
    return (
        0 < len(name) <= _LONGEST
        and name == name.strip()
        and name[0] not in ".-"
        and name[-1] != "."
        and not _NEVER.intersection(name)
        and not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in name)
        and len(name.encode()) <= 200
    )


def write_file(path: Path, text: str) -> None:
    """Replace a file, so that a reader sees the old content or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
