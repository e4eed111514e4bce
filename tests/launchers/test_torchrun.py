"""Launcher torchrun. Real processes: tests/e2e/test_signals.py, tests/e2e/test_torchrun.py."""

import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from forked import free_port
from tunewright.check import resolve
from tunewright.errors import RecipeError, RunError
from tunewright.launch import LaunchRequest
from tunewright.launch_failure import RESTARTS
from tunewright.stopper import SIGNALS, TOLD
from tunewright_hf.distributed.lost import left
from tunewright_torchrun import Torchrun, agent, command, elastic, hosts

HOST = re.escape(socket.gethostname())
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes")


@pytest.fixture
def torchrun(monkeypatch):
    """`launch` with a function in place of torchrun's main."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS}
    monkeypatch.setattr(agent.logging, "disable", lambda: None)
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "7")
    monkeypatch.delenv(TOLD, raising=False)
    monkeypatch.setenv(RESTARTS, "")

    def start(main, *argv, nodes=1, folder="run", dry_run=False, timeout=None, **options):
        module = SimpleNamespace(main=main)
        monkeypatch.setattr(agent.importlib, "import_module", lambda name: module)
        request = LaunchRequest(["train", "r.yaml", *argv], 2, nodes, Path(folder), dry_run=dry_run)
        options = Torchrun.Options(**{"main_port": 1234, **options})
        monkeypatch.setattr(hosts, "facts_of", lambda run: {})
        monkeypatch.setattr(elastic, "gather", lambda *_: torch.distributed.HashStore())
        monkeypatch.setattr(elastic, "watch", lambda *_: None)
        monkeypatch.setattr(elastic, "leave", lambda *_: None)
        run = SimpleNamespace(recipe=SimpleNamespace(launch=SimpleNamespace(timeout=timeout)))
        return agent.launched(options, run, request)

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
def test_workers_have_time_to_save(torchrun, monkeypatch):
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    torchrun(lambda _: None)
    assert os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "300"  # torchrun's own: 30


@posix
def test_runs_of_one_host_have_ports_of_their_own(torchrun):
    given = []
    for _ in range(2):
        torchrun(given.append, main_port=None)
    ports = [each.partition("=")[2] for call in given for each in call if "--master-port" in each]
    assert len(set(ports)) == 2 and all(map(int, ports))


@posix
def test_hosts_have_a_port_that_all_of_them_know(torchrun):
    said = torchrun(print, nodes=2, main_port=None, dry_run=True).detail
    assert "--master-port=29500" in said


@posix
@pytest.mark.parametrize(
    ("codes", "code"), [({"r0": 2, "r1": -15}, 2), ({"r0": 1, "r1": 130}, 130), ({"r1": 1}, 1)]
)
def test_the_code_of_a_rank_that_failed(torchrun, codes, code):
    assert torchrun(failing(ChildFailed(**codes))).code == code


@posix
def test_a_rank_that_was_killed_is_reported(torchrun):
    # rank 0 has lost it, and rank 2 was ended by torchrun
    with pytest.raises(RunError, match=rf"rank 1 on {HOST} was ended by SIGKILL \(.*short of mem"):
        torchrun(failing(ChildFailed(r0=1, r1=-9, r2=-15)))


@posix
def test_other_hosts_are_told_of_a_rank_that_was_killed():
    store = torch.distributed.HashStore()
    with pytest.raises(RunError, match="rank 1 on "):
        agent._code(ChildFailed(r1=-9).failures, store)
    assert left(store) == f"rank 1 on {socket.gethostname()} has ended: see what it said there"


@posix
def test_a_rank_that_has_ended_is_named(torchrun, capfd):
    torchrun(failing(ChildFailed(r0=-15, r1=3)))
    said = f"error: rank 1 on {socket.gethostname()} ended with exit code 3: see what it said above"
    assert said in capfd.readouterr().err.splitlines()


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

    assert torchrun(main).code == 130
    assert capfd.readouterr().err.startswith("stopping: ")


@posix
def test_what_nohup_ignores_stays_ignored(torchrun):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    torchrun(lambda _: os.kill(os.getpid(), signal.SIGHUP))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@posix
def test_hosts_that_come_and_go(torchrun, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "0")
    given = []
    torchrun(given.append, nodes="1:2", folder=tmp_path, main_address="127.0.0.1")
    assert {"--nnodes=1:2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:1234"} < set(given[0])
    assert "--local-addr=127.0.0.1" in given[0]
    assert not any("is_host" in word for word in given[0])  # which c10d knows of loopback
    assert given[0][-1] == "--resume"  # of every start after the first


@posix
@pytest.mark.parametrize(("own", "is_host"), [("10.77.0.1", 1), ("10.77.0.2", 0)])
def test_the_host_at_the_main_address_holds_the_store(
    torchrun, tmp_path, monkeypatch, own, is_host
):
    monkeypatch.setattr(command, "own_address", lambda target: own)
    given = []
    torchrun(given.append, nodes="1:2", folder=tmp_path, main_address="10.77.0.1")
    assert any(f"is_host={is_host}" in word for word in given[0])
    assert f"--local-addr={own}" in given[0]


def test_a_run_that_restarts_replaces_no_other(torchrun, tmp_path):
    with pytest.raises(RecipeError, match="cannot replace another one"):
        torchrun(print, "--overwrite", restarts=2, folder=tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RecipeError, match="--resume continues the run"):
        torchrun(print, restarts=2, folder=tmp_path)


def test_hosts_of_a_range_that_do_not_come(torchrun, tmp_path):
    class RendezvousTimeoutError(Exception):
        pass

    with pytest.raises(RunError, match="the other hosts did not come"):
        torchrun(failing(RendezvousTimeoutError()), nodes="2:3", folder=tmp_path)


@posix
@pytest.mark.parametrize(
    ("node_rank", "said"),
    [
        (0, r"1 of 2 hosts \(node 1\) did not come within 0.5 seconds"),
        (1, r"nobody answers at 127.0.0.1:\d+: .*\(host 0 has to run too"),
    ],
)
def test_a_host_that_does_not_come(torchrun, node_rank, said):
    with pytest.raises(RunError, match=said):
        torchrun(print, nodes=2, timeout=0.5, main_port=free_port(), node_rank=node_rank)


RECIPE = {
    "model": "tiny",
    "family": "qwen",
    "data": [{"path": "x.jsonl"}],
    "stage": "sft",
    "output": "runs/x",
}


@pytest.mark.parametrize(
    ("launch", "training", "problem"),
    [
        ({"name": "slurm", "nodes": "1:2"}, {}, "launch.nodes: is '1:2', and slurm takes a fixed"),
        ({"nodes": "1:2"}, {}, "training.rows_per_step: is missing, and launch.nodes is '1:2'"),
        (
            {"nodes": "1:3"},
            {"rows_per_step": 16, "batching": "random"},
            "rows_per_step: is 16, and 3 processes with 8 examples each do not give that",
        ),
        ({"nodes": "3:2"}, {}, "expected a number such as 2, or a range"),
        ({"node_rnk": 1}, {}, "launch.node_rnk: unknown key"),
        ({"name": "torchrn"}, {}, "torchrun"),
    ],
)
def test_what_a_recipe_may_not_ask(launch, training, problem):
    with pytest.raises(RecipeError) as found:
        resolve({**RECIPE, "launch": launch, "training": training})
    assert problem in str(found.value)


def test_what_a_recipe_had_before_there_were_launchers():
    old = {"processes": 2, "nodes": 2, "node_rank": 1, "main_address": "h", "timeout": None}
    found = resolve({**RECIPE, "launch": old})
    assert found.choices["launcher"].entry.name == "torchrun"
    assert found.recipe.as_mapping()["launch"]["node_rank"] == 1
    assert "launcher" not in resolve({**RECIPE, "launch": {"processes": 1}}).choices
