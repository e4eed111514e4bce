"""Runs of a workspace, from their folders: the folder is the truth, whoever started the run."""

import json
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

from tunewright_web.errors import WebError
from tunewright_web.index import Index
from tunewright_web.job import Job
from tunewright_web.jobs import Jobs
from tunewright_web.processes import HOST, is_alive
from tunewright_web.run import Run
from tunewright_web.workspace import Workspace, plain_name

__all__ = ["Runs"]

_INDEXES = 64  # that are held in memory
_TAIL = 8_192  # bytes


class Runs:
    """All runs. Files are read again when they have changed."""

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self._workspace, self._jobs = workspace, jobs
        self._read: dict[Path, tuple[tuple[int, int], Any]] = {}  # path → stamp, content
        self._indexes: OrderedDict[str, Index] = OrderedDict()

    def all(self, status: str = "", text: str = "") -> list[Run]:
        """Runs, active ones first, then the last changed first. text: words that the name, model,
        adapter or stages hold."""
        jobs = self._newest_jobs()
        names = self._names()
        found = [run for name in names if (run := self._run(name, jobs.get(f"runs/{name}")))]
        words = text.lower().split()
        if status:
            found = [run for run in found if run.status == status]
        if words:
            found = [run for run in found if all(word in _text(run) for word in words)]
        order = {"running": 0, "stopping": 0, "queued": 1}
        return sorted(found, key=lambda run: (order.get(run.status, 2), -run.updated, run.name))

    def get(self, name: str) -> Run:
        """Raises WebError."""
        job = self._newest_jobs().get(f"runs/{name}")
        if job is None or job.is_over:  # one that waits has no folder yet, such as a try
            self._workspace.run(name)
        found = self._run(name, job)
        if found is None:
            raise WebError(f"runs/{name} holds no run", status=404)
        return found

    def index(self, name: str) -> Index:
        """The index of a run's events, up to date. Raises WebError."""
        folder = self._workspace.runs / plain_name(name)
        if folder.exists():
            self._workspace.run(name)
        index = self._indexes.get(name) or Index(folder / "events.jsonl")
        self._indexes[name] = index
        self._indexes.move_to_end(name)
        while len(self._indexes) > _INDEXES:
            self._indexes.popitem(last=False)
        return index.update()

    def forget(self, name: str) -> None:
        """Drop what is held of a run that was deleted."""
        self._indexes.pop(name, None)

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._workspace.runs) as entries:
                return [
                    entry.name
                    for entry in entries
                    if entry.name[:1] != "." and entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            return []

    def _newest_jobs(self) -> dict[str, Job]:
        """Output → the newest job of those that train."""
        found: dict[str, Job] = {}
        for job in self._jobs.all():
            if job.output is not None and job.kind in ("train", "smoke"):
                old = found.get(job.output)
                if old is None or job.created > old.created:
                    found[job.output] = job
        return found

    # ---- one run ---------------------------------------------------------------------------------

    def _run(self, name: str, job: Job | None) -> Run | None:
        folder = self._workspace.runs / name
        try:
            state, changed = self._state(folder)
            error = ""
        except ValueError as damage:
            state, changed, error = {}, 0.0, f"run.json is damaged: {damage}"
        status: str
        if job is not None and not job.is_over:
            status = _of_active(job, state, changed)
        elif not state and not error:
            if job is None or job.status == "cancelled":
                return None
            status = "failed" if job.status == "completed" else job.status
        else:
            status = self._status(state, changed, job) if state else "failed"
        tail = self._tail(folder)
        running = _dict(state.get("running"))
        ended_here = job is not None and job.is_over and job.status == status
        if not error and status in ("failed", "lost"):
            error = _error(tail, job if ended_here else None, status)
        pid = running.get("pid")
        return Run(
            name=name,
            folder=folder,
            status=status,
            **_recipe_facts(_dict(state.get("recipe")), job),
            stage=str(running.get("stage") or tail.get("stage") or ""),
            step=tail.get("step", running.get("step")),
            total_steps=tail.get("total_steps", running.get("total_steps")),
            loss=tail.get("loss"),
            updated=changed or (job.created if job else 0.0),
            job=job.id if job and (ended_here or not job.is_over) else None,
            code=job.code if job and ended_here else None,
            error=error,
            warnings=tuple(map(str, state.get("warnings") or ())),
            pid=pid if isinstance(pid, int) else None,
            here=running.get("host") == HOST,
            is_ending=job is not None and not job.is_over and job.status != status,
            state=state,
        )

    def _status(self, state: dict[str, Any], changed: float, job: Job | None) -> str:
        """The job's exit comes first, then the process, then run.json."""
        ended = job is not None and job.status in ("failed", "interrupted")
        if job is not None and ended and changed <= (job.ended or 0.0) + 1:
            return job.status
        if state["status"] != "running":
            return str(state["status"])
        running = _dict(state.get("running"))
        if not running or running.get("host") != HOST:
            return "running"  # it has just begun, or runs on another machine
        alive = is_alive(running.get("pid"), float(running.get("started") or 0.0))
        return "running" if alive else "lost"

    def _state(self, folder: Path) -> tuple[dict[str, Any], float]:
        """Content of run.json, and when it changed; empty where there is none. Raises ValueError
        for a damaged one."""
        path = folder / "run.json"
        stamp = _stamp(path)
        if stamp is None:
            return {}, 0.0
        old = self._read.get(path)
        if old is None or old[0] != stamp:
            try:
                content: Any = json.loads(path.read_text("utf-8"))
                if not isinstance(content, dict) or not isinstance(content.get("status"), str):
                    raise ValueError("it describes no run")
            except OSError:
                return {}, 0.0
            except (ValueError, RecursionError) as damage:
                content = ValueError(" ".join(str(damage).split())[:200])
            self._read[path] = old = (stamp, content)
        if isinstance(old[1], ValueError):
            raise old[1]
        return old[1], stamp[0] / 1e9

    def _tail(self, folder: Path) -> dict[str, Any]:
        """Step, total_steps, stage and loss of the last logging step, and the last error."""
        path = folder / "events.jsonl"
        stamp = _stamp(path)
        if stamp is None:
            return {}
        old = self._read.get(path)
        if old is None or old[0] != stamp:
            self._read[path] = old = (stamp, _last_events(path))
        found: dict[str, Any] = old[1]
        return found


def _of_active(job: Job, state: dict[str, Any], changed: float) -> str:
    """Of a run whose job is not over: it may be done while its process still ends."""
    is_done = state.get("status") in ("completed", "interrupted") and job.status != "queued"
    return str(state["status"]) if is_done and changed > (job.started or 0.0) else job.status


def _last_events(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return found
    for line in lines:
        try:
            event = json.loads(line)
            match event["event"]:
                case "StageStarted":
                    found |= {"stage": event["stage"], "step": event["first_step"]}
                    found["total_steps"] = event["total_steps"]
                case "Logged":
                    found |= {key: event[key] for key in ("stage", "step", "total_steps")}
                    found["loss"] = event["metrics"].get("loss", found.get("loss"))
                case "RunStarted":
                    found.pop("error", None)
                case "RunFinished":
                    found["error"] = event["error"] or ""
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _error(tail: dict[str, Any], job: Job | None, status: str) -> str:
    """What is said on a failure: the kernel's last line first."""
    said = job.error() if job else ""
    said = said or re.sub(r"^\w+(Error|Exception): ", "", str(tail.get("error") or ""))
    if said or status != "lost":
        return said
    return "its process is gone without a word: killed, or the machine was restarted"


def _recipe_facts(recipe: dict[str, Any], job: Job | None) -> dict[str, Any]:
    if not recipe:
        facts = job.about if job else {}
        stages = tuple(map(str, facts.get("stages") or ()))
        model, adapter = facts.get("model") or "", facts.get("adapter") or ""
        return {"model": str(model), "adapter": str(adapter), "stages": stages}
    stages = tuple(str(_dict(each).get("name")) for each in recipe.get("stages") or ())
    adapter = _dict(recipe.get("adapter")).get("name") or ""
    return {"model": str(recipe.get("model") or ""), "adapter": str(adapter), "stages": stages}


def _text(run: Run) -> str:
    return " ".join((run.name, run.model, run.adapter, *run.stages)).lower()


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
