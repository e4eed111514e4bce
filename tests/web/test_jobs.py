"""The queue: nothing starts twice, no name is taken twice, and nobody has to read the output."""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from starlette.testclient import TestClient

from tunewright_web.errors import WebError
from tunewright_web.job import Job
from tunewright_web.jobs import Jobs
from tunewright_web.web import Web
from tunewright_web.workspace import Workspace

SLEEP = "import time; print('begun', flush=True); time.sleep(60)"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.create()
    return made


@pytest.fixture
def paused(workspace: Workspace) -> Jobs:
    """A queue that starts nothing by itself."""
    return Jobs(workspace, ())


def programmed(jobs: Jobs, code: str, **how: object) -> Job:
    """A job that runs Python code in place of `tunewright`."""
    job = jobs.add("train", ["version"], title="job", **how)  # type: ignore[arg-type]
    path = job.folder / "job.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"command": [sys.executable, "-c", code]}))
    return jobs.get(job.id)


def wait(what: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def statuses(jobs: Jobs, made: Sequence[Job]) -> list[str]:
    return [jobs.get(job.id).status for job in made]


def test_command(workspace: Workspace) -> None:
    """Any command of Tunewright is a job; its output is in a file."""
    jobs = Jobs(workspace)
    good = jobs.add("other", ["version"], title="version")
    wait(lambda: jobs.get(good.id).is_over)
    done = jobs.get(good.id)
    assert (done.status, done.code) == ("completed", 0)
    assert done.last_lines().strip()
    bad = jobs.add("train", ["train", "nothing.yaml"], title="bad")
    wait(lambda: jobs.get(bad.id).is_over)
    assert (jobs.get(bad.id).status, jobs.get(bad.id).code) == ("failed", 2)
    assert jobs.get(bad.id).error().startswith("error: nothing.yaml: ")


def test_order(workspace: Workspace, paused: Jobs) -> None:
    """A queue of three: it can be changed, what is cancelled never starts, one at a time."""
    made = [programmed(paused, f"print({n})") for n in range(4)]
    ids = [job.id for job in made]
    paused.move(ids[3], -2)
    assert [job.id for job in paused.all()] == [ids[0], ids[3], ids[1], ids[2]]
    paused.move(ids[0], 99)
    paused.cancel(ids[1])
    again = Jobs(workspace, ("",))  # another server, or this one after a restart
    assert [job.id for job in again.active()] == [ids[3], ids[2], ids[0]]
    started: list[str] = []

    def step() -> bool:
        again.start_due()
        running = [job.id for job in again.active() if job.status == "running"]
        assert len(running) <= 1
        started.extend(each for each in running if each not in started)
        return not again.active()

    wait(step)
    over = sorted(again.all(), key=lambda job: job.started or 0)
    assert [job.id for job in over if job.started] == [ids[3], ids[2], ids[0]]
    assert again.get(ids[1]).status == "cancelled"
    with pytest.raises(WebError, match="cancelled, not queued"):
        again.cancel(ids[1])


def test_names_are_claimed(paused: Jobs, workspace: Workspace) -> None:
    """Two starts at once for one output: one job, the other is told, whoever is first."""
    found: list[object] = []

    def start() -> None:
        try:
            found.append(paused.add("train", ["version"], title="x", output="runs/x"))
        except WebError as error:
            found.append(error.status)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found))[:3] == ["409"] * 3
    assert len(paused.active()) == 1
    paused.cancel(paused.active()[0].id)
    assert not (workspace.runs / "x").exists()
    (workspace.runs / "x").mkdir()
    (workspace.runs / "x" / "file").write_text("")
    with pytest.raises(WebError, match="runs/x is taken"):
        paused.add("train", ["version"], title="x", output="runs/x")


def test_two_servers(workspace: Workspace, paused: Jobs) -> None:
    """Two queues of one workspace start no job twice."""
    made = [programmed(paused, "import os; print('pid', os.getpid())") for _ in range(6)]
    servers = [Jobs(workspace), Jobs(workspace)]
    end = time.monotonic() + 60

    def serve(jobs: Jobs) -> None:
        while jobs.active() and time.monotonic() < end:
            jobs.start_due()

    threads = [threading.Thread(target=serve, args=(jobs,)) for jobs in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses(paused, made) == ["completed"] * 6
    for job in made:
        assert paused.get(job.id).last_lines().count("pid") == 1


def test_slots(workspace: Workspace, paused: Jobs) -> None:
    """A slot is a set of devices, of one job at a time."""
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(60)"
    made = [programmed(paused, code) for _ in range(3)]
    jobs = Jobs(workspace, ("0,1", "2"))
    jobs.start_due()
    wait(lambda: [jobs.get(job.id).last_lines().strip() for job in made] == ["0,1", "2", ""])
    assert statuses(jobs, made) == ["running", "running", "queued"]
    for job in made:
        jobs.stop(job.id, at_once=True)
    wait(lambda: not jobs.active())


def test_output_that_nobody_reads(workspace: Workspace, paused: Jobs) -> None:
    """More than a pipe holds: the job ends all the same."""
    job = programmed(paused, "print('x' * 3_000_000)")
    jobs = Jobs(workspace)
    jobs.start_due()
    wait(lambda: jobs.get(job.id).is_over)
    assert jobs.get(job.id).status == "completed"
    assert job.log.stat().st_size > 3_000_000


def test_stop(workspace: Workspace, paused: Jobs) -> None:
    """SIGTERM first; at once: SIGKILL, for all that it has started."""
    polite = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(130))\n"
    job = programmed(paused, polite + "print('begun', flush=True)\ntime.sleep(60)")
    jobs = Jobs(workspace)
    jobs.start_due()
    wait(lambda: "begun" in jobs.get(job.id).last_lines())
    assert jobs.stop(job.id).status in ("stopping", "interrupted")
    wait(lambda: jobs.get(job.id).is_over)
    assert (jobs.get(job.id).status, jobs.get(job.id).code) == ("interrupted", 130)
    deaf = "import signal, subprocess, sys, time\nsignal.signal(15, signal.SIG_IGN)\n"
    deaf += "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    job = programmed(paused, deaf + "print(child.pid, flush=True)\ntime.sleep(60)")
    jobs.start_due()
    wait(lambda: jobs.get(job.id).last_lines().endswith("\n"))
    child = int(jobs.get(job.id).last_lines())
    assert jobs.stop(job.id).status == "stopping"
    jobs.stop(job.id, at_once=True)
    wait(lambda: jobs.get(job.id).is_over)
    assert (jobs.get(job.id).status, jobs.get(job.id).code) == ("failed", 137)
    wait(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")
    with pytest.raises(WebError, match="cannot be stopped"):
        jobs.stop(job.id)


@pytest.mark.parametrize("who", ["child", "shepherd"])
def test_killed(workspace: Workspace, paused: Jobs, who: str) -> None:
    """SIGKILL of the command is told by its shepherd; that of both is seen."""
    job = programmed(paused, SLEEP)
    jobs = Jobs(workspace)
    jobs.start_due()
    wait(lambda: "begun" in jobs.get(job.id).last_lines())
    pids = json.loads((job.folder / "pid").read_text())
    if who == "shepherd":
        psutil.Process(pids["shepherd"]).send_signal(signal.SIGKILL)
        wait(lambda: jobs.start_due() or not _lives(pids["shepherd"]))
        assert jobs.get(job.id).status == "running"  # the command still is
    psutil.Process(pids["child"]).send_signal(signal.SIGKILL)
    wait(lambda: jobs.get(job.id).is_over)
    found = jobs.get(job.id)
    assert (found.status, found.code) == (("failed", 137) if who == "child" else ("lost", None))


def _lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_files_of_the_workspace_are_not_imported(workspace: Workspace) -> None:
    (workspace.root / "typer.py").write_text("raise SystemExit('imported')")
    jobs = Jobs(workspace)
    job = jobs.add("other", ["version"], title="version")
    wait(lambda: jobs.get(job.id).is_over)
    assert jobs.get(job.id).code == 0, jobs.get(job.id).last_lines()


def test_damaged_folders(workspace: Workspace, paused: Jobs) -> None:
    job = programmed(paused, "")
    for name, text in (("one", "{"), ("two", "[]"), ("three", "{}")):
        (workspace.jobs / name).mkdir()
        (workspace.jobs / name / "job.json").write_text(text)
    (workspace.jobs / "four").mkdir()
    assert [each.id for each in paused.all()] == [job.id]


def test_pages(client: TestClient, web: Web) -> None:
    """The page of a job, its buttons, and errors that come into the page."""
    jobs = Jobs(web.workspace, ())
    web.jobs._slots = ()  # nothing starts
    job = jobs.add("export", ["export", "runs/x"], title="an export")
    assert "an export" in client.get("/").text
    page = client.get(f"/jobs/{job.id}").text
    assert f'action="/jobs/{job.id}/cancel"' in page
    assert client.post(f"/jobs/{job.id}/cancel").headers["location"] == "/"
    assert "/cancel" not in client.get(f"/jobs/{job.id}").text
    again = client.post(f"/jobs/{job.id}/cancel", headers={"HX-Request": "true"})
    assert again.status_code == 409
    assert again.headers["HX-Retarget"] == "#notices"
    assert "the job is cancelled, not queued" in again.text
    assert "<html" not in again.text
    api = client.post(f"/api/v1/jobs/{job.id}/cancel")
    assert api.json() == {"error": "the job is cancelled, not queued", "hint": ""}
    assert client.get(f"/api/v1/jobs/{job.id}/log").json()["text"] == ""
