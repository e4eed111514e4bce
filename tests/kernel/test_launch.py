"""Workers of a run with several processes: what stops them, and what they need to know."""

import os
import signal
import subprocess
import sys

import pytest

from tunewright import cli_main, launch
from tunewright.errors import RecipeError, Stopped
from tunewright.stopper import TOLD, Stopper, asking

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes")


WORKER = "from tunewright.launch import end_with_parent as e; import time; e(); time.sleep(60)"
PARENT = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {WORKER!r}]).pid)"


@posix
def test_a_worker_ends_with_its_parent():
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "x"}
    command = [sys.executable, "-c", f"{PARENT}; import time; sys.stdout.close(); time.sleep(1)"]
    began = subprocess.run(  # the pipe of standard error is open until the worker has ended
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert began.stderr == "error: torchrun is gone: this process ends too\n"


# ---- in a worker ---------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("signals", "under_torchrun", "at_once"),
    [
        (["SIGINT", "SIGINT"], False, True),
        (["SIGINT", "SIGTERM"], False, False),
        (["SIGINT", "SIGTERM"], True, True),  # how torchrun passes on a second Ctrl-C
        (["SIGTERM", "SIGTERM"], True, False),
        (["SIGTERM", "SIGINT"], False, True),
        (["SIGHUP"], False, False),
    ],
)
def test_what_stops_at_once(monkeypatch, signals, under_torchrun, at_once):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    if not under_torchrun:
        monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    try:
        with Stopper() as stopped:
            for name in signals:
                os.kill(os.getpid(), getattr(signal, name))
            assert stopped()
        found = False
    except KeyboardInterrupt:
        found = True
    assert found is at_once


@posix
@pytest.mark.parametrize(
    ("environment", "said"), [({}, 1), ({"RANK": "1"}, 0), ({"RANK": "0", TOLD: "1"}, 0)], ids=str
)
def test_one_process_answers(monkeypatch, capfd, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with Stopper():
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err.count("stopping: ") == said


@pytest.mark.parametrize(("rank", "said"), [("0", "error: stopped at step 3\n"), ("1", "")])
def test_one_rank_says_where_it_stopped(monkeypatch, capsys, rank, said):
    monkeypatch.setenv("RANK", rank)

    def stop():
        raise Stopped("stopped at step 3")

    assert cli_main.ended(stop, debug=False) == 130
    assert capsys.readouterr().err == said


@posix
def test_a_terminal_that_closes_stops_nothing_that_nohup_started():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopper() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_launcher_stops_a_worker_without_signals():
    with Stopper() as stopped:
        with asking(lambda: True):
            assert stopped()
        assert not stopped()


def worker(monkeypatch, **changed):
    found = dict.fromkeys(launch.VARIABLES, "1") | changed
    for name, value in found.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("missing", launch.VARIABLES)
def test_a_worker_needs_all_six_variables(monkeypatch, missing):
    worker(monkeypatch, **{missing: ""})
    with pytest.raises(RecipeError, match=f"{missing} is not set"):
        launch.check_variables()


def test_a_worker_with_all_variables(monkeypatch):
    worker(monkeypatch)
    launch.check_variables()
    worker(monkeypatch, **dict.fromkeys(launch.VARIABLES, ""))
    launch.check_variables()


def test_work_runs_a_command_line(monkeypatch, capsys):
    monkeypatch.setenv("TW_TEST", "")
    before = sys.argv
    assert launch.work(["version"], {"TW_TEST": "given"}) == 0
    assert capsys.readouterr().out.strip()
    assert (os.environ["TW_TEST"], sys.argv) == ("given", before)
    assert launch.work(["no-such-verb"], {}) == 2


def test_what_is_passed_to_other_hosts(monkeypatch):
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HOME_OF_MINE", "/root")
    found = launch._environment()
    assert found["HF_HOME"] == "/models"
    assert not {"HF_TOKEN", "HOME_OF_MINE"} & found.keys()
