"""Jobs: commands of Tunewright that wait in a queue and run beside the server.

A job is a folder `.tunewright/jobs/ID` with job.json, recipe.yaml (where it has one), log.txt, pid
and exit; every file is replaced at once. Servers of one workspace share the queue: each takes its
lock, for milliseconds, to change it.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright_web.errors import WebError
from tunewright_web.job import Job, Status, read_job, read_json
from tunewright_web.processes import kill_tree, terminate
from tunewright_web.workspace import Workspace, write_file

__all__ = ["RECIPE", "Jobs"]

RECIPE = "{recipe}"  #: in the arguments of a job: the path of its recipe
_SHEPHERD = Path(__file__).with_name("shepherd.py")
_LONGEST_QUEUE = 1_000


class Jobs:
    """The queue of a workspace. slots: devices of jobs side by side, as in CUDA_VISIBLE_DEVICES."""

    def __init__(self, workspace: Workspace, slots: Sequence[str] = ("",)) -> None:
        self._workspace, self._slots = workspace, tuple(slots)
        self._folder = workspace.jobs
        self._over: dict[str, Job] = {}  # what has ended does not change

    # ---- reading ---------------------------------------------------------------------------------

    def all(self) -> list[Job]:
        """Running ones, queued ones in order, then those that have ended, the last first."""
        found = [job for name in self._names() if (job := self._read(name)) is not None]
        waiting = [job for job in found if not job.is_over]
        waiting.sort(key=lambda job: (job.status == "queued", job.order))
        over = [job for job in found if job.is_over]
        return waiting + sorted(over, key=lambda job: job.created, reverse=True)

    def active(self) -> list[Job]:
        """Jobs that run or wait."""
        return [job for job in self.all() if not job.is_over]

    def get(self, name: str) -> Job:
        """Raises WebError."""
        job = self._read(name) if name in self._names() else None
        if job is None:
            raise WebError(f"there is no job {name!r:.100}", status=404)
        return job

    def of_output(self, output: str) -> Job | None:
        """The newest job that writes this folder."""
        found = [job for job in self.all() if job.output == output]
        return max(found, key=lambda job: job.created, default=None)

    def _names(self) -> list[str]:
        try:
            return [entry.name for entry in os.scandir(self._folder) if entry.name[:1] != "."]
        except OSError:
            return []

    def _read(self, name: str) -> Job | None:
        if name in self._over:
            return self._over[name]
        job = read_job(self._folder / name)
        if job is not None and job.is_over and job.status != "lost":
            self._over[name] = job
        return job

    # ---- changing --------------------------------------------------------------------------------

    def add(
        self,
        kind: str,
        argv: Sequence[str],
        *,
        title: str,
        output: str | None = None,
        recipe: str | None = None,
        claim: bool = True,
        about: dict[str, Any] | None = None,
    ) -> Job:
        """Queue `tunewright ARGV`.

        output: folder that it writes, relative to the workspace; with `claim` it is created now, so
        that nobody else gets it. recipe: text of a recipe, whose path stands in argv as RECIPE.
        about: JSON for pages. Raises WebError of status 409 where the output is taken.
        """
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        with self._locked():
            active = self.active()
            if len(active) >= _LONGEST_QUEUE:
                raise WebError(f"{_LONGEST_QUEUE} jobs wait already", status=429)
            if output is not None:
                self._claim(output, active, claim)
            folder = self._folder / f".{name}"  # not seen until it is complete
            folder.mkdir()
            path = self._folder / name / "recipe.yaml"
            if recipe is not None:
                (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
            given = [str(path) if word == RECIPE else word for word in argv]
            now = time.time()
            values = {
                "kind": kind,
                "title": title,
                "argv": given,
                "output": output,
                "claimed": claim and output is not None,
                "order": now,
                "created": now,
                "started": None,
                "slot": None,
                "about": about or {},
                # -P: a file of the workspace that is called as a library is not imported
                "command": [sys.executable, "-P", "-m", "tunewright", *given],
                "cwd": str(self._workspace.root),
                "env": {},
            }
            write_file(folder / "job.json", json.dumps(values, indent=1))
            os.replace(folder, self._folder / name)
        self.start_due()
        return self.get(name)

    def _claim(self, output: str, active: Sequence[Job], claim: bool) -> None:
        taken = WebError(f"{output} is taken", "choose another name", status=409)
        if any(job.output == output for job in active):
            hint = "wait for its job, or cancel it; or choose another name"
            raise WebError(f"{output} is taken by a job that runs or waits", hint, status=409)
        if claim:
            path = self._workspace.root / output
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError as error:
                raise taken from error
            except OSError as error:
                raise WebError(f"{output}: {error.strerror}", status=422) from error

    def cancel(self, name: str) -> Job:
        """Take a job that waits out of the queue. Raises WebError of status 409 if it has begun."""
        with self._locked():
            job = self.get(name)
            if job.status != "queued":
                raise WebError(f"the job is {job.status}, not queued", status=409)
            _exit(job, "cancelled")
            if read_json(job.folder / "job.json", {}).get("claimed") and job.output:
                with contextlib.suppress(OSError):  # it is empty
                    (self._workspace.root / job.output).rmdir()
        return self.get(name)

    def move(self, name: str, by: int) -> None:
        """Move a job that waits: -1 is one place forward. Raises WebError."""
        with self._locked():
            queue = [job for job in self.all() if job.status == "queued"]
            here = next((at for at, job in enumerate(queue) if job.id == name), None)
            if here is None:
                raise WebError("the job does not wait", status=409)
            there = min(max(here + by, 0), len(queue) - 1)
            queue.insert(there, queue.pop(here))
            orders = sorted(job.order for job in queue)
            for job, order in zip(queue, orders, strict=True):
                if job.order != order:
                    self._change(job.id, order=order)

    def stop(self, name: str, *, at_once: bool = False) -> Job:
        """Ask a job to save and end; at_once: kill it, and all that it has started."""
        job = self.get(name)
        if job.status == "queued":
            return self.cancel(name)
        pids = read_json(job.folder / "pid", {})
        act = kill_tree if at_once else terminate
        if job.is_over or not act(pids.get("child"), pids.get("time", 0.0)):
            raise WebError(f"the job is {job.status}, it cannot be stopped", status=409)
        write_file(job.folder / "stop", "")
        return self.get(name)

    def _change(self, name: str, **changes: Any) -> None:
        path = self._folder / name / "job.json"
        write_file(path, json.dumps(read_json(path, {}) | changes, indent=1))

    # ---- starting --------------------------------------------------------------------------------

    def start_due(self) -> None:
        """Start what waits, where a slot is free. Servers call it every second."""
        if not any(job.status == "queued" for job in self.active()):
            return
        with contextlib.suppress(WebError), self._locked():
            active = self.active()
            free = Counter(self._slots)
            free.subtract(job.slot for job in active if job.slot is not None)
            for job in active:
                slot = next((slot for slot in self._slots if free[slot] > 0), None)
                if job.status == "queued" and slot is not None:
                    free[slot] -= 1
                    self._start(job, slot)

    def _start(self, job: Job, slot: str) -> None:
        env = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "NO_COLOR": "1", "COLUMNS": "100"}
        if slot:
            env["CUDA_VISIBLE_DEVICES"] = slot
        self._change(job.id, started=time.time(), slot=slot, env=env)
        shepherd = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SHEPHERD), str(job.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=True,
        )
        # so that no zombie stays; the shepherd does not mind when this process ends
        threading.Thread(target=shepherd.wait, daemon=True).start()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout  # of servers, few of which have a queue

        lock = FileLock(self._workspace.hidden / "queue.lock", timeout=10)
        try:
            with lock:
                yield
        except Timeout as error:
            hint = "another server of this workspace holds .tunewright/queue.lock"
            raise WebError("the queue is locked", hint, status=503) from error


def _exit(job: Job, status: Status) -> None:
    write_file(job.folder / "exit", json.dumps({"status": status, "time": time.time()}))
