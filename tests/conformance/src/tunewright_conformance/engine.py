"""Tests for engines: an answer depends on its request alone, and ends exactly once."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tunewright.check import resolve
from tunewright.context import Run
from tunewright.errors import RowError, TunewrightError
from tunewright.inference import (
    EngineRequest,
    GenerateRequest,
    InferenceEngine,
    JsonSchema,
    Piece,
    answers,
)
from tunewright.registry import Entry
from tunewright.types import Conversation, Message
from tunewright_conformance.dataset import messages_stage
from tunewright_conformance.suite import Suite
from tunewright_conformance.trial import go, recipe

QUESTIONS = ("Line 3?", "Line 1? And who are you?", "Line 7?", "What?", "Line 2, please.")
SECONDS = 60  # that an answer may take


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run whose model has learned to end its replies."""
    asked = recipe(
        {"name": messages_stage()}, "messages", tmp_path_factory.mktemp("engine"), 12, epochs=12
    )
    go(asked)
    return asked


class Heard:
    """Listener that keeps what it gets, and can wait for the end."""

    def __init__(self, count: int = 1) -> None:
        self.pieces: list[Piece] = []
        self._left, self.ended, self.begun = count, threading.Event(), threading.Event()

    def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.begun.set()
        self._left -= piece.finish_reason is not None
        if not self._left:
            self.ended.set()

    def wait(self) -> list[Piece]:
        assert self.ended.wait(SECONDS), f"no end after {SECONDS} s"
        return self.pieces


class TestEngine(Suite):
    kinds = ("engine",)

    @pytest.fixture
    def run(self, entry: Entry, options: dict[str, Any], trained: dict[str, Any]) -> Run:
        return Run(resolve(trained | {"engine": {"name": entry.name, **options}}))

    @pytest.fixture
    def opened(self, run: Run) -> Iterator[InferenceEngine]:
        with run.call("engine", "open_engine", EngineRequest(slots=4)) as engine:
            yield engine

    def test_declares(self, opened: InferenceEngine) -> None:
        """It names its models, its length, what it can do, and the checkpoint's defaults."""
        assert opened.models and all(opened.models)
        assert opened.max_length > 0
        assert "generation" in opened.features
        assert opened.count(request()) == len(opened.encode(request())) > 0

    def test_greedy(self, opened: InferenceEngine) -> None:
        """Greedy decoding gives the same reply twice."""
        assert text(ask(opened)) == text(ask(opened))

    def test_end(self, run: Run, opened: InferenceEngine) -> None:
        """Only the last piece has a finish reason; the stop token is not part of the reply."""
        pieces = ask(opened)
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
        stop = (*run.plugin("template").info.stop, run.load(weights="none").tokenizer.eos_token)
        assert text(pieces).strip()
        assert not [token for token in stop if token in text(pieces)]

    def test_length(self, opened: InferenceEngine) -> None:
        """After max_new_tokens the reply ends, with the reason length."""
        pieces = ask(opened, max_new_tokens=2)
        assert pieces[-1].finish_reason == "length"
        assert text(ask(opened)).startswith(text(pieces))
        assert len(text(pieces)) < len(text(ask(opened)))

    def test_stop_string(self, opened: InferenceEngine) -> None:
        """A stop string of the request ends the reply before it, also across tokens."""
        whole = text(ask(opened))
        end = len(whole) // 2
        stop = whole[end : end + 3]
        pieces = ask(opened, stop=(stop,))
        assert text(pieces) == whole[: whole.index(stop)]
        assert (pieces[-1].finish_reason, pieces[-1].stop) == ("stop", stop)

    def test_streams(self, opened: InferenceEngine) -> None:
        """A reply comes in several pieces."""
        assert len([piece for piece in ask(opened) if piece.text]) > 1

    def test_seed(self, opened: InferenceEngine) -> None:
        """The same seed samples the same reply, other seeds sample others."""
        drawn = [text(ask(opened, temperature=2.0, seed=seed)) for seed in (1, 1, 2, 3, 4)]
        assert drawn[0] == drawn[1]
        assert len(set(drawn)) > 2

    def test_at_once(self, opened: InferenceEngine) -> None:
        """Answers at once, more than there are slots, equal answers one at a time, with and without
        sampling, and also if they come while others are under way."""
        asked = [
            request(question, temperature=1.5 * (number % 2), seed=number)
            for number, question in enumerate(QUESTIONS * 2)
        ]
        alone = [text(list(answers(opened, each))) for each in asked]
        heard = [Heard() for _ in asked]
        for number, (each, listener) in enumerate(zip(asked, heard, strict=True)):
            opened.submit(each, listener)
            if number == 1:
                assert heard[0].begun.wait(SECONDS)
        assert [text(listener.wait()) for listener in heard] == alone

    def test_one_end(self, opened: InferenceEngine) -> None:
        """Each of n answers has exactly one last piece, nothing after it, and its own number."""
        heard = Heard(3)
        ticket = opened.submit(request(n=3, temperature=1.0, seed=5), heard)
        assert ticket.prompt_tokens == opened.count(request())
        pieces = heard.wait()
        for index in range(3):
            own = [piece for piece in pieces if piece.index == index]
            reasons = [piece.finish_reason for piece in own]
            assert reasons[-1] in ("stop", "length") and not any(reasons[:-1])
            assert own[-1].completion_tokens > 0

    def test_cancel(self, opened: InferenceEngine) -> None:
        """A cancelled answer ends soon, once, with the reason cancelled, and frees its slot."""
        expected = text(ask(opened))
        heard = [Heard() for _ in range(8)]
        tickets = [
            opened.submit(request(max_new_tokens=400, ignore_eos=True), listener)
            for listener in heard
        ]
        assert heard[0].begun.wait(SECONDS)
        for ticket in tickets:
            ticket.cancel()
            ticket.cancel()
        for listener in heard:
            assert listener.wait()[-1].finish_reason in ("cancelled", "length")
        assert any(listener.pieces[-1].finish_reason == "cancelled" for listener in heard)
        assert text(ask(opened)) == expected
        for ticket in tickets:
            ticket.cancel()  # nothing comes after the end
        ask(opened)
        assert [len([p for p in h.pieces if p.finish_reason]) for h in heard] == [1] * 8

    def test_failing_listener(self, opened: InferenceEngine) -> None:
        """A listener that raises harms no other answer."""
        expected = text(ask(opened))

        def failing(piece: Piece) -> None:
            raise ValueError("this listener fails")

        heard = Heard()
        opened.submit(request(), failing)
        opened.submit(request(), heard)
        assert text(heard.wait()) == expected
        assert text(ask(opened)) == expected

    def test_abandoned_answer(self, opened: InferenceEngine) -> None:
        """A reply that is not read to its end does not affect the next."""
        expected = text(ask(opened))
        pieces = answers(opened, request())
        next(pieces)
        pieces.close()
        assert text(ask(opened)) == expected

    def test_refusals(self, opened: InferenceEngine) -> None:
        """A request that cannot be answered is refused by submit, before any piece."""
        heard = Heard()
        for how in ({"model": "no such model"}, {"prompt": [1] * (opened.max_length + 1)}):
            with pytest.raises(RowError):
                opened.submit(request(**how), heard)
        assert not heard.pieces

    def test_closed(self, run: Run) -> None:
        """Closing ends what is under way; then nothing is taken."""
        engine = run.call("engine", "open_engine", EngineRequest(slots=1))
        heard = [Heard(), Heard()]
        for listener in heard:
            engine.submit(request(max_new_tokens=400, ignore_eos=True), listener)
        engine.close()
        assert {listener.wait()[-1].finish_reason for listener in heard} <= {"cancelled", "length"}
        with pytest.raises(TunewrightError):
            engine.submit(request(), Heard())
        engine.close()

    def test_prompt_ids(self, opened: InferenceEngine) -> None:
        """The ids of a rendered conversation as the prompt give the same reply."""
        assert text(ask(opened, prompt=opened.encode(request()))) == text(ask(opened))

    def test_logprobs(self, opened: InferenceEngine) -> None:
        """Greedy tokens are the most likely ones; their bytes are the text."""
        if "logprobs" not in opened.features:
            pytest.skip("the engine does not have the feature logprobs")
        pieces = ask(opened, logprobs=2)
        tokens = [token for piece in pieces for token in piece.tokens]
        assert b"".join(token.data for token in tokens).decode().strip() == text(pieces).strip()
        for token in tokens:
            assert token.logprob is not None and token.logprob <= 0
            assert token.top[0] == (token.id, token.data, token.logprob) and len(token.top) == 2

    def test_guide(self, opened: InferenceEngine) -> None:
        """With a JSON schema the whole reply fits it."""
        if "guides" not in opened.features:
            pytest.skip("the engine does not have the feature guides")
        schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
        guide = JsonSchema(schema | {"additionalProperties": False}, before="<", after=">")
        assert text(ask(opened, guide=guide)) in ('<{"a": 1}>', '<{"a": 2}>')


def request(question: str = QUESTIONS[0], **how: Any) -> GenerateRequest:
    settings = {"max_new_tokens": 60, "temperature": 0.0, **how}
    return GenerateRequest(Conversation([Message("user", question)]), **settings)


def ask(engine: InferenceEngine, **how: Any) -> list[Piece]:
    return list(answers(engine, request(**how)))


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)
