"""The scripted engine, and the helper `answers` on it."""

import pytest

from tunewright import RowError, RunError
from tunewright.inference import Busy, GenerateRequest, Piece, answers
from tunewright.types import Conversation, Message
from tunewright_conformance.scripted import ScriptedEngine


def request(**how: object) -> GenerateRequest:
    return GenerateRequest(Conversation([Message("user", "Hi")]), **how)  # type: ignore[arg-type]


def test_it_says_its_script_in_pieces() -> None:
    with ScriptedEngine("Hello there.", ["<think>", "hm"], lambda asked: str(asked.seed)) as engine:
        first, second, third, fourth = (
            [piece.text for piece in answers(engine, request(seed=seed))] for seed in range(4)
        )
    assert (first, second) == (["Hello", " there.", ""], ["<think>", "hm", ""])
    assert (third, fourth) == (["2", ""], ["3", ""])
    assert [asked.seed for asked in engine.asked] == [0, 1, 2, 3]


def test_limits_stops_scores_and_n() -> None:
    with ScriptedEngine("one two three") as engine:
        assert [piece.finish_reason for piece in answers(engine, request(max_new_tokens=2))] == [
            None,
            None,
            "length",
        ]
        *_, last = answers(engine, request(stop=("wo",)))
        assert (last.text, last.finish_reason, last.stop) == (" t", "stop", "wo")
        scored = list(answers(engine, request(logprobs=2, n=2)))
        assert [len(piece.tokens) for piece in scored if piece.index == 1] == [1, 1, 1, 0]
        assert len(scored[0].tokens[0].top) == 2


def test_errors_and_refusals() -> None:
    with ScriptedEngine(["half", ValueError("broken")], max_length=20) as engine:
        with pytest.raises(RunError, match="broken"):
            list(answers(engine, request(max_new_tokens=None)))
        with pytest.raises(RowError):
            engine.encode(GenerateRequest())
        with pytest.raises(RowError):
            engine.submit(request(model="another"), lambda piece: None)
    with pytest.raises(RunError, match="closed"):
        engine.submit(request(), lambda piece: None)


def test_by_hand_one_piece_a_step() -> None:
    engine = ScriptedEngine("a b c d", by_hand=True, slots=1, max_waiting=1)
    heard: list[Piece] = []
    first = engine.submit(request(), heard.append)
    engine.submit(request(), heard.append)
    with pytest.raises(Busy):
        engine.submit(request(), heard.append)
    engine.step()
    assert [piece.text for piece in heard] == ["a"]
    assert (engine.stats().running, engine.stats().waiting) == (1, 1)
    first.cancel()
    engine.step()
    assert (heard[-1].finish_reason, engine.cancelled) == ("cancelled", 1)
    engine.close()
    assert (heard[-1].finish_reason, engine.cancelled) == ("cancelled", 2)
