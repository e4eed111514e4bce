"""Several processes for one run. Real ones: tests/e2e/test_signals.py."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from tunewright import cli_main, launch
from tunewright.errors import RunError, Stopped
from tunewright.recipe import Launch
from tunewright.stopper import TOLD, Stopper

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes")


@pytest.fixture
def torchrun(monkeypatch):
    """`launch` with a function in place of torchrun's main."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in launch._SIGNALS}
    monkeypatch.setattr(launch.logging, "disable", lambda: None)
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "7")
    monkeypatch.delenv(TOLD, raising=False)

    def start(main):
        module = SimpleNamespace(main=main)
        monkeypatch.setattr(launch.importlib, "import_module", lambda name: module)
        launch.launch(Launch(processes=2, main_port=1234), ["train", "r.yaml"])

    yield start
    os.environ.pop(TOLD, None)
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


class ChildFailed(Exception):
    def __init__(self, **codes: int) -> None:
        self.failures = {
            int(rank[1:]): SimpleNamespace(exitcode=code) for rank, code in codes.items()
        }


def failing(error: BaseException):
    def main(_: list[str]) -> None:
        raise error

    return main


@posix
def test_workers_run_the_same_command_line(torchrun):
    given = []
    torchrun(given.append)
    assert given[0][-4:] == ["--module", "tunewright", "train", "r.yaml"]
    assert {"--nproc-per-node=2", "--master-port=1234", "--node-rank=0"} < set(given[0])
    assert os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "7"  # what the user has set


@posix
@pytest.mark.parametrize(
    ("codes", "code"), [({"r0": 2, "r1": -15}, 2), ({"r0": 1, "r1": 130}, 130), ({"r1": 1}, 1)]
)
def test_the_code_of_a_rank_that_failed(torchrun, codes, code):
    with pytest.raises(SystemExit) as ended:
        torchrun(failing(ChildFailed(**codes)))
    assert ended.value.code == code


@posix
def test_a_rank_that_was_killed_is_reported(torchrun):
    with pytest.raises(RunError, match=r"rank 1 was ended by SIGKILL \(.*short of memory\)"):
        torchrun(failing(ChildFailed(r1=-9)))


@posix
def test_other_errors_are_as_they_are(torchrun):
    with pytest.raises(ValueError, match="no rendezvous"):
        torchrun(failing(ValueError("no rendezvous")))


@posix
def test_a_signal_before_there_are_workers(torchrun, monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "torch.distributed.elastic.multiprocessing.api", raising=False)

    def main(_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        raise AssertionError("went on")

    with pytest.raises(SystemExit) as ended:
        torchrun(main)
    assert ended.value.code == 130
    assert capfd.readouterr().err.startswith("stopping: ")


@posix
def test_what_nohup_ignores_stays_ignored(torchrun):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    torchrun(lambda _: os.kill(os.getpid(), signal.SIGHUP))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


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
