"""Mirror of a run folder on an object store, through fsspec.

Complete checkpoints and results only: of each the files first, its list of files with digests last.
An object store replaces one object atomically and has no rename; a folder without the list does not
count.
"""

import contextlib
import json
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from tunewright import RecipeError, RunError, folder
from tunewright.events import Event, Logged, Notice, Saved, StageFinished
from tunewright.state import EVENTS_FILE
from tunewright.urls import mask_url
from tunewright_hf.checkpoints import being_copied
from tunewright_hf.checkpoints.folder import MANIFEST, listed, step_folders, verify

__all__ = ["FolderMirror"]

_LIST = "mirror.json"  # of a result: its files, as in a checkpoint's manifest
_TRIES, _PAUSE = 4, 2.0  # of an upload; seconds, doubled each time
_EVERY = 60  # seconds between two copies of the small files while a run goes


class FolderMirror:
    """Implements tunewright.mirror.Mirror."""

    def __init__(self, run: Any) -> None:
        self.run, self.local, self.url = run, Path(run.folder), str(run.recipe.mirror)
        self.place = run.place("output", "mirror")
        try:
            import fsspec  # type: ignore[import-untyped]

            self.store, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            hint = "s3fs serves s3://, gcsfs gs://, adlfs az://"
            raise RecipeError(f"{error}", place=self.place, hint=hint) from error
        self.root = root.rstrip("/")
        self._small, self._closing = time.monotonic(), False
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    # ---- to an empty folder ----------------------------------------------------------------------

    def pull(self) -> None:
        """Copy the run to the run folder, if that has none. Raises RunError."""
        if (self.local / folder.RUN_FILE).exists() or not self._exists(folder.RUN_FILE):
            return
        self.run.emit(Notice(message=f"copying the run from {mask_url(self.url)}"))
        with self._saying("cannot be read"):
            found = self.store.find(self.root)
            names = [name[len(self.root) :].lstrip("/") for name in found]
            for name in names:
                below = PurePosixPath(name)
                if below.name in (MANIFEST, _LIST) and ".." not in below.parts:
                    self._pull_folder(below.parent, below.name)
            for name in names:
                if "/" not in name and name != folder.RUN_FILE:
                    self._pull_file(name, self.local / name)
            self._pull_file(folder.RUN_FILE, self.local / folder.RUN_FILE)

    def _pull_folder(self, below: PurePosixPath, manifest: str) -> None:
        """A checkpoint or a result, verified; left out, with a notice, where it is damaged."""
        target = self.local / below
        shutil.rmtree(target, ignore_errors=True)
        content = json.loads(self.store.cat_file(self._at(below / manifest)))
        for name in content["files"]:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise RunError(f"leads out of its folder: {name!r:.80}", place=self.place)
            self._pull_file(str(below / name), target / name)
        (target / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
        try:
            verify(target)
        except RunError as error:
            shutil.rmtree(target)
            message = f"{below} is left out: what the mirror holds is damaged ({error.problem})"
            self.run.emit(Notice(message=message, level="warning"))
        else:
            if manifest == _LIST:
                (target / MANIFEST).unlink()

    def _pull_file(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.store.get_file(self._at(name), str(target))

    # ---- from the run folder ---------------------------------------------------------------------

    def begin(self, state: dict[str, Any], overwrite: bool) -> None:
        """Claim the place for a run. state: content of its run.json. Raises RecipeError where it
        holds another run, RunError where it cannot be written."""
        with self._saying("cannot be written"):
            if self._exists(folder.RUN_FILE):
                there = json.loads(self.store.cat_file(self._at(folder.RUN_FILE)))
                data = there.get("data", {})
                other = any(data[key] != state["data"].get(key, data[key]) for key in data)
                if other or not state["resumed"]:
                    self._clear(there, overwrite)
            self._push_small()
        self._thread.start()

    def _clear(self, there: dict[str, Any], overwrite: bool) -> None:
        if not overwrite:
            hint = "--resume in an empty run folder continues it; or --overwrite, or another mirror"
            raise RecipeError("holds another run", place=self.place, hint=hint)
        self.store.rm(self._at(folder.RUN_FILE))
        for name in {*folder.ARTIFACTS, *folder.artifacts_of(there)} - {folder.RUN_FILE}:
            if self._exists(name):
                self.store.rm(self._at(name), recursive=True)

    def __call__(self, event: Event) -> None:
        match event:
            case Saved():
                self._put(self.local / event.path, MANIFEST)
            case StageFinished():
                self._put(self.local / event.path, _LIST)
            case Logged() if time.monotonic() - self._small > _EVERY:
                self._small = time.monotonic()
                self._jobs.put(self._push_small)

    def _put(self, path: Path, manifest: str) -> None:
        being_copied.add(path)  # until it is copied it is not removed
        self._jobs.put(lambda: self._push_folder(path, manifest))

    def close(self) -> None:
        """Wait until everything is copied."""
        if self._thread.is_alive():
            self._closing = True
            if self._jobs.unfinished_tasks:
                print(f"waiting until the run is copied to {mask_url(self.url)}", file=sys.stderr)
            self._jobs.put(self._push_small)  # what loggers have written last
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while job := self._jobs.get():
            for number in range(_TRIES):
                try:
                    job()
                    break
                except Exception as error:  # of any store's library
                    said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                    if number + 1 < _TRIES:
                        time.sleep(_PAUSE * 2**number)
            else:
                message = f"not copied to {mask_url(self.url)}: {said}"
                if self._closing:  # nobody listens to events any more
                    print(f"warning: {message}", file=sys.stderr)
                self.run.emit(Notice(message=message, level="warning"))
            self._jobs.task_done()

    def _push_folder(self, path: Path, manifest: str) -> None:
        below = PurePosixPath(path.relative_to(self.local).as_posix())
        try:
            if manifest == MANIFEST:
                content = (path / MANIFEST).read_text("utf-8")
            else:
                content = json.dumps({"format": 1, "files": listed(path)})
            for name in json.loads(content)["files"]:
                self.store.put_file(str(path / name), self._at(below / name))
            self.store.pipe_file(self._at(below / manifest), content.encode())
        finally:
            being_copied.remove(path)
        self._push_small()
        if manifest == MANIFEST:
            self._rotate(path.parent)

    def _rotate(self, checkpoints: Path) -> None:
        """Remove checkpoints that the run folder does not hold any more."""
        below = checkpoints.relative_to(self.local).as_posix()
        kept = {path.name for path in step_folders(checkpoints)}
        for name in self.store.ls(self._at(below), detail=False):
            step = PurePosixPath(name).name
            if step.startswith("step-") and step not in kept:
                with contextlib.suppress(FileNotFoundError):
                    self.store.rm(f"{name}/{MANIFEST}")  # first: it is no checkpoint from now on
                self.store.rm(name, recursive=True)

    def _push_small(self) -> None:
        """The files at the top of the run folder, run.json last."""
        files = [path for path in self.local.iterdir() if path.is_file()]
        names = [path.name for path in files if not path.name.startswith(".")]
        for name in sorted(names, key=lambda name: (name == folder.RUN_FILE, name != EVENTS_FILE)):
            self.store.pipe_file(self._at(name), (self.local / name).read_bytes())

    # ---- places ----------------------------------------------------------------------------------

    def _at(self, below: str | PurePosixPath) -> str:
        return f"{self.root}/{below}"

    def _exists(self, name: str) -> bool:
        self.store.invalidate_cache()
        with self._saying("cannot be read"):
            return bool(self.store.exists(self._at(name)))

    @contextlib.contextmanager
    def _saying(self, problem: str) -> Any:
        """Raise RunError for errors of the store's library."""
        try:
            yield
        except (RecipeError, RunError):
            raise
        except Exception as error:  # libraries of stores have exceptions of their own
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise RunError(f"{problem}: {said}", place=mask_url(self.url)) from error
