"""An engine that is unloaded while nobody asks."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.serving import served
from tunewright import RowError, RunError
from tunewright.inference import GenerateRequest, answers
from tunewright_conformance.scripted import ScriptedEngine
from tunewright_serve.idle import IdleEngine

ASKED = GenerateRequest(prompt="hi")


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


class Opener:
    """Opens scripted engines, and knows which live."""

    def __init__(self, by_hand: bool = False) -> None:
        self.opened: list[weakref.ref[ScriptedEngine]] = []
        self.by_hand = by_hand

    def __call__(self) -> ScriptedEngine:
        engine = ScriptedEngine("one two", by_hand=self.by_hand)
        self.opened.append(weakref.ref(engine))
        return engine

    @property
    def living(self) -> int:
        gc.collect()
        return sum(each() is not None and not each().closed for each in self.opened)


def test_it_is_unloaded_and_loaded_again() -> None:
    opener = Opener()
    with IdleEngine(opener, 1.0) as engine:
        assert engine.models == ("scripted",) and opener.living == 1
        for count in (1, 2):
            assert "".join(piece.text for piece in answers(engine, ASKED)) == "one two"
            until(lambda: not opener.living)
            assert len(opener.opened) == count
            stats = engine.stats()  # looks, and opens nothing
            assert (stats.prompt_tokens, stats.completion_tokens) == (2 * count, 2 * count)
            assert not opener.living and not stats.running
    with pytest.raises(RunError, match="closed"):
        engine.encode(ASKED)


def test_it_stays_while_an_answer_runs() -> None:
    opener, ended = Opener(by_hand=True), threading.Event()
    with IdleEngine(opener, 0.05) as engine:
        ticket = engine.submit(ASKED, lambda piece: piece.finish_reason and ended.set())
        time.sleep(0.3)
        assert opener.living == 1 and not ended.is_set()
        scripted = opener.opened[0]()
        assert scripted
        while scripted.step():
            pass
        del scripted, ticket
        until(lambda: not opener.living)
    assert ended.is_set()


def test_a_refused_request_does_not_hold_it() -> None:
    opener = Opener()
    with IdleEngine(opener, 0.05) as engine:
        with pytest.raises(RowError):
            engine.submit(GenerateRequest(prompt="hi", model="none"), print)
        until(lambda: not opener.living)


def test_many_clients_find_it_unloaded() -> None:
    opener = Opener()
    with served(IdleEngine(opener, 0.2)) as running:
        until(lambda: not opener.living)
        assert running.ask("/ready").status == running.ask("/metrics").status == 200
        assert not opener.living
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: running.chat(), range(8)))
        assert [each.status for each in found] == [200] * 8
        assert len(opener.opened) == 2
