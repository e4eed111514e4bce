"""What is asked of every engine: the same answer to the same question, in pieces, and an end with a
reason."""

from typing import Any

import pytest

from tunewright.check import resolve
from tunewright.context import Run
from tunewright.registry import Entry
from tunewright.types import Conversation, GenerateRequest, LoadedModel, Message, Reply
from tunewright_conformance.dataset import messages_stage
from tunewright_conformance.suite import Suite
from tunewright_conformance.trial import go, recipe


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run whose model has learned to end its answers."""
    asked = recipe(
        {"name": messages_stage()}, "messages", tmp_path_factory.mktemp("engine"), 12, epochs=12
    )
    go(asked)
    return asked


class TestEngine(Suite):
    kinds = ("engine",)

    @pytest.fixture
    def run(self, entry: Entry, trained: dict[str, Any]) -> Run:
        return Run(resolve(trained | {"engine": entry.name}))

    def test_greedy(self, run: Run) -> None:
        """Asked twice, it gives the same answer."""
        assert text(ask(run)) == text(ask(run))

    def test_end(self, run: Run) -> None:
        """The last piece, and no other, says why the answer ends; the stop token is no part of
        it."""
        pieces = ask(run)
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
        stop = (*run.plugin("template").info.stop, run.load(weights="none").tokenizer.eos_token)
        assert text(pieces).strip()
        assert not [token for token in stop if token in text(pieces)]

    def test_length(self, run: Run) -> None:
        """After max_new_tokens the answer ends, with the reason length."""
        pieces = ask(run, max_new_tokens=2)
        assert pieces[-1].finish_reason == "length"
        assert text(ask(run)).startswith(text(pieces))
        assert len(text(pieces)) < len(text(ask(run)))

    def test_stop_string(self, run: Run) -> None:
        """A string of the request ends the answer before it."""
        whole = text(ask(run))
        end = len(whole) // 2
        stop = whole[end : end + 3]
        pieces = ask(run, stop=(stop,))
        assert text(pieces) == whole[: whole.index(stop)]
        assert pieces[-1].finish_reason == "stop"

    def test_streams(self, run: Run) -> None:
        """An answer comes in several pieces."""
        assert len([piece for piece in ask(run) if piece.text]) > 1

    def test_seed(self, run: Run) -> None:
        """The same seed draws the same answer, and others draw others."""
        drawn = [text(ask(run, temperature=2.0, seed=seed)) for seed in (1, 1, 2, 3, 4)]
        assert drawn[0] == drawn[1]
        assert len(set(drawn)) > 2

    def test_abandoned_answer(self, run: Run) -> None:
        """An answer that nobody reads to its end does no harm to the next."""
        expected = text(ask(run))
        pieces = run.call("engine", "generate", GenerateRequest(question(), max_new_tokens=200))
        next(pieces)
        pieces.close()
        assert text(ask(run)) == expected

    def test_loads_once(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """The model is loaded for the first answer and kept."""
        load, loads = Run.load_policy, []

        def counted(self: Run) -> LoadedModel:
            loads.append(self)
            return load(self)

        monkeypatch.setattr(Run, "load_policy", counted)
        ask(run)
        ask(run)
        assert len(loads) <= 1


def question() -> Conversation:
    return Conversation([Message("user", "Line 3?")])


def ask(run: Run, **how: Any) -> list[Reply]:
    return list(
        run.call("engine", "generate", GenerateRequest(question(), **{"max_new_tokens": 60, **how}))
    )


def text(pieces: list[Reply]) -> str:
    return "".join(piece.text for piece in pieces)
