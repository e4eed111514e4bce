"""Ranks meet: all are there, want the same, and agree whether a stage's training begins."""

import atexit
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import torch

from tunewright import RunError, folder
from tunewright.errors import LostRank, Stopped
from tunewright_hf.distributed.lost import leave, left, meeting_key
from tunewright_hf.distributed.store import TO_COME, open_store

__all__ = ["Meeting", "begin_together", "check_in", "facts_of"]

Facts = Mapping[str, Any]

_BEGIN, _STOP = "begin", "stop"  # decisions; any other one is a problem, in words
_LOST = "lost: "  # begins a problem that is a rank that has ended
_MINUTE = 60  # seconds between two lines on who is missing
_TO_READ = 5.0  # seconds that rank 0 gives ranks to read why it ends
#: sections of a recipe that may differ from host to host
_OWN = ("launch", "output", "loggers", "engine", "data_root")
_numbers = count(1)  # of the meetings of this process: all ranks have the same ones
_tells: list[bool] = []  # the stopping_alone in progress
_checked_in: list[int] = []  # this process's rank, once


def check_in(run: Any) -> None:
    """Once in a process, before anything costly: wait until all ranks are there.

    Raises RunError, on all ranks that came, where one does not come within launch.timeout, or has
    another recipe or other versions.
    """
    if run.world_size > 1 and not _checked_in:
        _checked_in.append(run.rank)
        atexit.register(leave, run.rank)
        _meet(run, "here", facts_of(run), run.recipe.launch.timeout or TO_COME)


def facts_of(run: Any) -> Facts:
    """Fields of the recipe, and versions, which have to be the same on all hosts."""
    recipe = run.recipe.as_dict()
    facts = dict(_flat({name: recipe[name] for name in recipe if name not in _OWN}))
    versions = folder.versions(recipe)
    return facts | {"python": versions["python"], **versions["libraries"], **versions["plugins"]}


def begin_together(run: Any, stage: int, facts: Facts | None = None) -> None:
    """Wait for all ranks. Until this returns a rank may stop alone, and after it none may: the
    others would wait for it in a collective. stage: number of the stage. facts: as for `check_in`.

    Raises Stopped, on all ranks that wait, where one of them was asked to stop; RunError where
    facts differ, or a rank has ended.
    """
    if run.world_size > 1:
        _meet(run, f"stage {stage}", facts or {}, None)


def may_stop_alone() -> bool:
    """Whether no other rank waits for this one in a collective, or all hear of it."""
    return bool(_tells) or not torch.distributed.is_initialized()


@contextmanager
def stopping_alone() -> Iterator[None]:
    """Within, this rank may stop: the caller tells the others."""
    _tells.append(True)
    try:
        yield
    finally:
        _tells.pop()


class Meeting:
    """A meeting of all ranks in a store that they share.

    name: the same on all, another for each meeting. of: plural and singular of those that meet, in
    messages.
    """

    def __init__(
        self,
        store: Any,
        name: str,
        rank: int,
        ranks: int,
        of: tuple[str, str] = ("processes", "rank"),
    ) -> None:
        self.store, self.rank, self.ranks, self.of = store, rank, ranks, of
        self.key = meeting_key(name)

    def hold(
        self,
        facts: Facts,
        check_stop: Callable[[], None],
        say: Callable[[str], None],
        timeout: float | None = None,
    ) -> None:
        """Come, and wait for the decision: the rank that comes last decides to begin, or before it
        one that is asked to stop, or has waited long enough.

        timeout: seconds to wait for ranks that have not come; None: as long as it takes, for what
        they do before. Raises Stopped and RunError, on all ranks that have come.
        """
        own = json.dumps({"host": socket.gethostname(), "facts": dict(facts)}, default=str)
        is_first = self.store.add(f"{self.key}/{self.rank} came", 1) == 1
        if is_first:
            self.store.set(f"{self.key}/{self.rank}", own)
        have_come = self.store.add(f"{self.key}/arrived", 1)
        if not is_first:
            self._decide(f"{self.of[1]} {self.rank} came twice, also from {socket.gethostname()}")
        elif have_come == self.ranks:
            self._decide(self._difference() or _BEGIN)
        asked, began, said = None, time.monotonic(), 0
        while not self.store.check([self.key]):
            try:
                check_stop()
                time.sleep(min(0.5, 0.05 + (time.monotonic() - began) / 20))  # seconds
            except Stopped as stopped:
                asked = stopped
                self._decide(_STOP)
            waited = time.monotonic() - began
            if gone := left(self.store):
                self._decide(f"{_LOST}{gone}")
            elif timeout is not None and waited > timeout:
                self._decide(f"{self._missing()} did not come within {timeout:g} seconds")
            elif waited >= (said + 1) * _MINUTE:
                said += 1
                say(f"waiting for {self._missing()}, for {said} min now")
        decision = self.store.get(self.key).decode()
        if decision != _BEGIN:
            with suppress(torch.distributed.DistError):  # all of them have, and are gone
                self.store.add(f"{self.key}/read", 1)
                self._all_have_read(_TO_READ)
        if decision == _STOP:
            raise asked or Stopped("stopped as another rank was asked")
        if decision.startswith(_LOST):
            raise LostRank(decision.removeprefix(_LOST), place="launch")
        if decision != _BEGIN:
            raise RunError(decision, place="launch")

    def refuse(self, problem: str, seconds: float, most: int = 0) -> None:
        """Decide for all that this rank does not come. seconds: that rank 0, which may hold the
        store, waits for the others to read it. most: ranks that there may be in place of
        `self.ranks`; it waits for the further ones a little longer."""
        self._decide(problem)
        self.store.add(f"{self.key}/read", 1)
        self._all_have_read(seconds, self.ranks)
        self._all_have_read(_TO_READ, max(most, self.ranks))

    def _all_have_read(self, seconds: float, ranks: int | None = None) -> None:
        """On rank 0, which may hold the store: wait until the others know too. ranks: their
        number; None: those that have come."""
        until = time.monotonic() + seconds
        while self.rank == 0 and time.monotonic() < until:
            come, read = (self.store.add(f"{self.key}/{name}", 0) for name in ("arrived", "read"))
            if read >= (ranks or come):
                return
            time.sleep(0.05)  # seconds

    def _decide(self, decision: str) -> None:
        """Decide, unless another rank has."""
        self.store.compare_set(self.key, "", decision)

    def _missing(self) -> str:
        away = [
            str(rank) for rank in range(self.ranks) if not self.store.check([f"{self.key}/{rank}"])
        ]
        some = ", ".join(away[:8]) + (", …" if len(away) > 8 else "")
        several, one = self.of
        return f"{len(away)} of {self.ranks} {several} ({one} {some})"

    def _difference(self) -> str:
        """The first difference of any rank from rank 0, in words; "" where there is none."""
        return next(filter(None, map(self.difference_of, range(1, self.ranks))), "")

    def difference_of(self, rank: int) -> str:
        """The first difference of a rank from rank 0, in words; "" where there is none."""
        first, other = self._told(0), self._told(rank)
        ours, theirs = first["facts"], other["facts"]
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                there, here = (f"{each.get(name)!r:.200}" for each in (theirs, ours))
                one = self.of[1]
                where = f"{one} {rank} on {other['host']}"
                return f"{where} has {name} {there}, {one} 0 on {first['host']} has {here}"
        return ""

    def _told(self, rank: int) -> dict[str, Any]:
        return dict(json.loads(self.store.get(f"{self.key}/{rank}")))


def _meet(run: Any, name: str, facts: Facts, timeout: float | None) -> None:
    def say(message: str) -> None:
        if run.rank == 0:  # before there is a run folder, whose loggers would say it
            print(message, file=sys.stderr)

    store = open_store(run)
    name = f"{next(_numbers)} {name}"  # a process may train several times: "1 here" is the first
    try:
        Meeting(store, name, run.rank, run.world_size).hold(facts, run.check_stop, say, timeout)
    except torch.distributed.DistError as error:
        raise LostRank("rank 0 has ended: see what it said there", place="launch") from error


def _flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Fields of a recipe, by their path; but for paths of files, which may be others on each host:
    what they hold is compared."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if key != "path":
                yield from _flat(item, f"{at}.{key}" if at else str(key))
    else:
        yield at, value
