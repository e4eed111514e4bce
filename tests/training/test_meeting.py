"""Ranks meet before the first step: who is missing, who differs, who has ended."""

import threading
from typing import Any

import pytest
import torch

from tunewright import RunError
from tunewright.launch import VARIABLES
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.distributed import lost, meeting
from tunewright_hf.distributed import store as distributed_store
from tunewright_hf.distributed.group import interface_to, naming_lost_ranks
from tunewright_hf.distributed.meeting import Meeting


def hold(facts: list[dict[str, Any]], ranks: int, timeout: float | None = None) -> list[str]:
    """What each rank that comes is told. facts: of the ranks that come."""
    store, found = torch.distributed.HashStore(), {}

    def rank(number: int) -> None:
        try:
            Meeting(store, "x", number, ranks).hold(
                facts[number], lambda: None, lambda message: None, timeout
            )
            found[number] = "begun"
        except RunError as error:
            found[number] = error.problem

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(len(facts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(facts))]


def test_all_that_agree_begin() -> None:
    assert hold([{"a": 1, "b": [2]}] * 3, 3) == ["begun"] * 3


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ([{"training.seed": 1}, {"training.seed": 1}, {"training.seed": 2}], "training.seed 2"),
        ([{"a": 1}, {"a": 1, "accelerators.0.name": "fsdp"}, {"a": 1}], "accelerators.0.name"),
    ],
)
def test_a_difference_names_rank_host_and_field_on_all(facts: list[dict], said: str) -> None:
    first, *others = hold(facts, 3)
    assert said in first and "rank 0 on " in first
    assert ("rank 2 on " if "seed" in said else "rank 1 on ") in first
    assert others == [first, first]


def test_one_that_does_not_come_is_named() -> None:
    said = "1 of 3 processes (rank 1) did not come within 0.3 seconds"
    assert refused(0, 2, ranks=3) == [said, said]


def test_two_that_have_one_number_are_told() -> None:
    first, other = refused(0, 0, ranks=2)
    assert first == other and first.startswith("rank 0 came twice, also from ")


def refused(*numbers: int, ranks: int) -> list[str]:
    """What the ranks of these numbers are told, which come in vain."""
    store, found = torch.distributed.HashStore(), []

    def rank(number: int) -> None:
        with pytest.raises(RunError) as caught:
            Meeting(store, "x", number, ranks).hold({}, lambda: None, print, 0.3)
        found.append(caught.value.problem)

    threads = [threading.Thread(target=rank, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_who_waits_is_told_that_another_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    store = torch.distributed.HashStore()
    monkeypatch.setattr(lost, "stores", [store])
    lost.leave(1)
    with pytest.raises(RunError, match=r"rank 1 on .* has ended"):
        Meeting(store, "x", 0, 2).hold({}, lambda: None, print)


def test_who_is_waited_for_is_said_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "_MINUTE", 0.2)
    said: list[str] = []
    with pytest.raises(RunError):
        Meeting(torch.distributed.HashStore(), "x", 0, 2).hold({}, lambda: None, said.append, 0.5)
    assert said[0] == "waiting for 1 of 2 processes (rank 1), for 1 min now"
    assert len(said) == 2


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed_store, "stores", [])
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(RunError, match="LOCAL_RANK is not set"):
        distributed_store._store(1)


@pytest.mark.parametrize(
    ("problem", "named"),
    [
        ("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.77.0.2]:1234", True),
        ("Timed out waiting 5000ms for recv operation to complete", True),
        ("The size of tensor a (3) must match the size of tensor b (4)", False),
    ],
)
def test_a_lost_rank_is_no_defect_of_ours(
    problem: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = torch.distributed.HashStore()
    monkeypatch.setattr(lost, "stores", [store])
    lost.leave(3)
    run = FakeRun(world_size=4)
    expected = RunError if named else RuntimeError
    with pytest.raises(expected) as caught, naming_lost_ranks(run, lambda: 21):
        raise RuntimeError(problem)
    if named:
        assert "rank 3 on " in str(caught.value) and "after step 21" in str(caught.value)
        assert "--resume" in str(caught.value.hint)
    else:
        assert str(caught.value) == problem


def test_the_interface_of_the_loopback_is_left_alone() -> None:
    assert interface_to("127.0.0.1") is None
