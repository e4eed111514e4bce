"""Recorded behaviour of vLLM and SGLang on the wire, in this process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine_setup import id_of, request, text_of
from remote.setup import REPLY, ids, opened, run_of, running
from remote.stand_in_server import Wire
from tunewright import RowError, RunError
from tunewright.inference import EngineRequest, JsonSchema, Piece, answers
from tunewright.types import Conversation, MediaPart, Message, TextPart

SCHEMA = JsonSchema({"type": "object", "properties": {"a": {"type": "integer"}}}, before="<")


async def reply(body: dict[str, Any]) -> AsyncIterator[tuple[int, dict[int, float]]]:
    for token in ids(REPLY):
        yield token, {token: -0.5, 3: -1.0}
    yield id_of("<|im_end|>"), {id_of("<|im_end|>"): -0.1, 3: -2.0}


def wire(*faults: str, kind: str = "vllm", **how: Any) -> Wire:
    return Wire(kind, reply, ["base", "pirate"], faults=frozenset(faults), **how)


def said(found: Wire, tmp_path: Any, options: Any = None, **asked: Any) -> list[Piece]:
    with (
        running(found) as address,
        opened(
            found.kind, run_of(tmp_path), EngineRequest(), address=address, **options or {}
        ) as engine,
    ):
        return list(answers(engine, request("hi", **asked)))


@pytest.mark.parametrize("fault", ["", "coalesces", "null finish_reason"])
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_text_is_ours(kind: str, fault: str, tmp_path: Any) -> None:
    """Decoded from the ids, without the stop token; also with several ids in a chunk, and where the
    last chunk gives no reason."""
    found = wire(fault, kind=kind)
    pieces = said(found, tmp_path, stop_ids=(7,))
    assert text_of(pieces) == REPLY
    assert (pieces[-1].finish_reason, pieces[-1].stop) == ("stop", None)
    assert pieces[-1].completion_tokens == len(ids(REPLY)) + 1
    assert {path for path, _ in found.asked} == {"/v1/completions"}


def test_length_stop_strings_and_stop_ids(tmp_path: Any) -> None:
    length = said(wire("null finish_reason"), tmp_path, max_new_tokens=4)
    assert (text_of(length), length[-1].finish_reason) == (REPLY[:4], "length")
    string = said(wire("coalesces"), tmp_path, stop=("lo",))
    assert (text_of(string), string[-1].stop) == ("Hel", "lo")
    (token,) = ids("o")
    by_id = said(wire(), tmp_path, stop_ids=(token,))
    assert (text_of(by_id), by_id[-1].stop) == ("Hell", token)
    assert text_of(said(wire(), tmp_path, max_new_tokens=0)) == ""


def test_several_answers_are_several_requests(tmp_path: Any) -> None:
    """vLLM refuses n > 1 in greedy decoding; each has a seed of its own."""
    found = wire()
    pieces = said(found, tmp_path, n=3, seed=5)
    for index in range(3):
        assert "".join(piece.text for piece in pieces if piece.index == index) == REPLY
    assert sorted(body["seed"] for _, body in found.asked) == [5, 6, 7]
    assert all("n" not in body for _, body in found.asked)


def test_logprobs_by_token_ids(tmp_path: Any) -> None:
    pieces = said(wire("coalesces"), tmp_path, logprobs=1)
    scores = [token for piece in pieces for token in piece.tokens]
    assert [score.id for score in scores] == ids(REPLY)
    assert all(score.logprob == -0.5 for score in scores)
    assert scores[0].top == ((scores[0].id, b"H", -0.5),)


def test_a_guide_is_a_grammar_without_white_space(tmp_path: Any) -> None:
    """With a JSON schema vLLM's answers were white space up to max_tokens."""
    for kind in ("vllm", "sglang"):
        found = wire(kind=kind)
        said(found, tmp_path, guide=SCHEMA)
        body = found.asked[0][1]
        grammar = body["ebnf"] if kind == "sglang" else body["structured_outputs"]["grammar"]
        assert grammar.startswith("root ::=") and '"\\"a\\"" ": "' in grammar and '"<"' in grammar


def test_all_settings_are_sent(tmp_path: Any) -> None:
    """So that neither the server's defaults nor generation_config.json matter."""
    found = wire()
    said(found, tmp_path, temperature=0.5, top_k=3, logit_bias={4: 1.0}, presence_penalty=0.1)
    body = found.asked[0][1]
    expected = {"temperature": 0.5, "top_k": 3, "logit_bias": {"4": 1.0}, "top_p": 1.0}
    expected |= {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.1}
    expected |= {"stop_token_ids": sorted(map(id_of, ("</s>", "<|im_end|>")))}
    assert expected.items() <= body.items() and body["skip_special_tokens"] is False


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("breaks off", "the server broke off"),
        ("fails", "EngineCore died"),
        ("refuses", "refused the request with 400: no such luck"),
        ("no ids", "gives no token ids"),
    ],
)
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_faults_are_errors_and_the_engine_goes_on(
    kind: str, fault: str, says: str, tmp_path: Any
) -> None:
    found = wire(fault, kind=kind)
    with (
        running(found) as address,
        opened(kind, run_of(tmp_path), EngineRequest(), address=address) as engine,
    ):
        with pytest.raises(RunError, match=says):
            list(answers(engine, request("hi")))
        found.faults = frozenset()
        assert text_of(list(answers(engine, request("hi")))) == REPLY
        assert engine.stats().running == 0


def test_requests_that_are_refused(tmp_path: Any) -> None:
    for kind, asked, says in (
        ("vllm", {"logprobs": 21}, "at most 20"),
        ("sglang", {"logprobs": 1}, "do not name tokens"),
        ("sglang", {"seed": 1, "temperature": 1.0}, r"deterministic: true"),
        ("vllm", {"n": 0}, "at least 1"),
    ):
        with pytest.raises(RowError, match=says):
            said(wire(kind=kind), tmp_path, **asked)
    seeded = said(wire(kind="sglang"), tmp_path, {"deterministic": True}, seed=1, temperature=1.0)
    assert text_of(seeded) == REPLY


def test_a_server_that_runs_already(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path)
    with running(wire(token="hidden")) as address:
        with pytest.raises(RunError, match=r"lists no models.*401.*TUNEWRIGHT_ENGINE_TOKEN"):
            opened("vllm", run, EngineRequest(address=address))
        monkeypatch.setenv("TUNEWRIGHT_ENGINE_TOKEN", "hidden")
        with pytest.raises(RunError, match=r"no model 'bose' \(did you mean 'base'\?\)"):
            opened("vllm", run, EngineRequest(address=address), model_name="bose")
        with pytest.raises(RunError, match="serves no adapter 'x'"):
            opened("vllm", run, EngineRequest(address=address, adapters={"x": tmp_path}))
        asked = EngineRequest(address=address, adapters={"pirate": tmp_path}, max_length=100)
        with opened("vllm", run, asked) as engine:
            assert engine.max_length == 100 and "adapters" in engine.features
            assert text_of(list(answers(engine, request("hi", model="pirate")))) == REPLY
    with pytest.raises(RunError, match="lists no models"):
        opened("vllm", run, EngineRequest(address=address))


@pytest.mark.parametrize(("kind", "title"), [("vllm", "vLLM"), ("sglang", "SGLang")])
def test_media_are_refused(kind: str, title: str, tmp_path: Any) -> None:
    """Before anything is sent: token ids alone would be an answer about no picture."""
    found, asked = wire(kind=kind), request("hi")
    parts: list[Any] = [MediaPart("image", "a.png"), TextPart("hi")]
    asked.conversation = Conversation([Message("user", parts)])
    with (
        running(found) as address,
        opened(kind, run_of(tmp_path), EngineRequest(), address=address) as engine,
    ):
        assert not {"images", "videos", "audio"} & engine.features
        with pytest.raises(RowError, match=f"has image, and {title} gets token ids here"):
            list(answers(engine, asked))
    assert "/v1/completions" not in {path for path, _ in found.asked}
