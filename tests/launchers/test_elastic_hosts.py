"""Hosts that may come and go, before torchrun starts and after one of them has made a mistake."""

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tunewright import RecipeError, RunError
from tunewright.errors import LostRank, Stopped
from tunewright.launch_failure import RESTARTS
from tunewright_hf.distributed.meeting import Meeting
from tunewright_torchrun import Torchrun, elastic

HOST = socket.gethostname()


class Hosts:
    """Commands on several hosts, which are threads here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nodes: str, timeout: float = 20) -> None:
        self.store, self.nodes, self.timeout = torch.distributed.HashStore(), nodes, timeout
        self.said: list[str] = []
        monkeypatch.setattr(elastic, "the_store", lambda *_: self.store)
        monkeypatch.setattr(elastic, "facts_of", lambda facts: facts)

    def gather(self, facts: dict[str, Any], stopped: bool = False) -> str:
        """What the command on a host is told."""

        class Run(dict):
            recipe = type("Recipe", (), {"launch": type("L", (), {"timeout": self.timeout})})

        request: Any = type("Request", (), {})()
        request.nodes, request.processes = self.nodes, facts.pop("processes", 1)
        request.stop_requested = lambda: stopped
        try:
            elastic.gather(Torchrun.Options(), Run(facts), request, self.said.append)
        except (RunError, Stopped) as error:
            return error.problem
        return "begun"

    def all(self, *facts: dict[str, Any]) -> list[str]:
        with ThreadPoolExecutor(len(facts)) as pool:
            return list(pool.map(self.gather, facts))


def test_a_run_begins_with_as_many_as_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, "2:4")
    assert hosts.all({"a": 1}, {"a": 1}, {"a": 1}) == ["begun"] * 3
    assert hosts.gather({"a": 1}) == "begun"  # one that returns


def test_too_few_hosts_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, "3:4", timeout=0.5)
    said = "1 of at least 3 hosts did not come within 0.5 seconds"
    assert hosts.all({}, {}) == [said] * 2


def test_a_difference_ends_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = Hosts(monkeypatch, "2:3").all({"a": 1}, {"a": 2})
    assert first == other and f"host 1 on {HOST} has a " in first
    first, other = Hosts(monkeypatch, "2:3").all({"processes": 1}, {"processes": 2})
    assert first == other and "has launch.processes" in first


def test_a_difference_of_one_that_returns_ends_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, "1:2")
    assert hosts.gather({"a": 1}) == "begun"
    assert hosts.gather({"a": 2}) == f"host 1 on {HOST} has a 2, host 0 on {HOST} has 1"
    assert hosts.gather({"a": 1}) == "begun"
    hosts = Hosts(monkeypatch, "2:3")
    assert hosts.all({"a": 1}, {"a": 1}) == ["begun"] * 2
    assert "has a 2" in hosts.gather({"a": 2})  # and is not counted
    ended = threading.Event()
    monkeypatch.setattr(elastic, "_TO_READ", 0.1)
    elastic.watch(hosts.store, 2, lambda: False, lambda reason: ended.set())
    elastic.leave(hosts.store)
    assert ended.wait(10)


def test_one_that_is_stopped_ends_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, "2:3")
    assert hosts.gather({}, stopped=True) == "stopped before the run began"
    assert hosts.gather({}) == "stopped as another rank was asked"


def test_a_mistake_ends_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, "2:3")
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(hosts.gather, {})
        elastic.tell(Torchrun.Options(main_address="10.0.0.9"), "2:3", "no data", hosts.said.append)
        assert waits.result() == f"host {HOST}: no data"
    assert hosts.said[0].startswith("telling the other hosts, at 10.0.0.9:29500")


def test_a_mistake_ends_no_run_that_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, "1:2")
    assert hosts.gather({}) == "begun"
    elastic.tell(Torchrun.Options(main_address="10.0.0.9"), "1:2", "no data", hosts.said.append)
    assert hosts.gather({}) == "begun"


def test_the_last_hosts_end_where_one_of_them_has(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, ended = Hosts(monkeypatch, "2:3"), threading.Event()
    assert hosts.all({}, {}, {}) == ["begun"] * 3
    said: list[str] = []
    for _ in range(2):
        elastic.watch(
            hosts.store, 2, lambda: False, lambda reason: (said.append(reason), ended.set())
        )
    elastic.watch(hosts.store, 2, lambda: True, lambda reason: said.append("ends anyway"))
    monkeypatch.setattr(elastic, "_TO_READ", 0.1)
    elastic.leave(hosts.store)
    assert not ended.wait(1)  # two are left
    elastic.leave(hosts.store)
    assert ended.wait(10) and set(said) == {f"{HOST} has ended: see what it said there"}


# ---- workers that would fail again ---------------------------------------------------------------

WORKER = """
import sys
from tunewright import RecipeError, RunError, errors
from tunewright.launch_failure import telling_launcher, tell_now
try:
    with telling_launcher():
        raise eval(sys.argv[1])
except BaseException:
    tell_now()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (repr(RecipeError("x")), True),
        (repr(RunError("x")), True),
        ("TypeError('x')", True),
        (f"errors.{LostRank('x')!r}", False),
        (f"errors.{Stopped('x')!r}", False),
        ("RuntimeError('CUDA error')", False),
        ("OSError('I/O')", False),
        ("KeyboardInterrupt()", False),
    ],
)
@pytest.mark.parametrize("restarts", ["1", ""])
def test_a_worker_tells_that_it_would_fail_again(error: str, told: bool, restarts: str) -> None:
    found: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: found.append(number))
    try:
        environment = {**os.environ, RESTARTS: restarts}
        subprocess.run([sys.executable, "-c", WORKER, error], env=environment, check=True)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert bool(found) is (told and bool(restarts))


def test_ranks_that_are_lost_may_be_started_again() -> None:
    store = torch.distributed.HashStore()
    Meeting(store, "x", 0, 2).refuse("lost: rank 1 on b has ended", 0)
    with pytest.raises(LostRank, match=r"^launch: rank 1 on b has ended$"):
        Meeting(store, "x", 1, 2).hold({}, lambda: None, lambda message: None)
    store = torch.distributed.HashStore()
    Meeting(store, "x", 0, 2).refuse("rank 1 has another recipe", 0)
    with pytest.raises(RunError) as found:
        Meeting(store, "x", 1, 2).hold({}, lambda: None, lambda message: None)
    assert type(found.value) is RunError
