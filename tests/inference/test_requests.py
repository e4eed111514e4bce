"""Requests to the engine hf: checks, features, and what happens at the end."""

import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from engine_setup import (  # noqa: E402
    END,
    byte_tokenizer,
    id_of,
    opened,
    parrot,
    real,
    request,
    text_of,
)
from tunewright import RowError, RunError  # noqa: E402
from tunewright.inference import Busy, Piece, Regex, answers  # noqa: E402
from tunewright_hf.inference.token_bytes import TokenBytes  # noqa: E402

LOUD = {"initializer_range": 0.5}


def ask(engine: Any, **how: Any) -> list[Piece]:
    return list(answers(engine, request(**{"max_new_tokens": 12} | how)))


def said(engine: Any, **how: Any) -> str:
    return text_of(ask(engine, **how))


@pytest.mark.parametrize(
    ("how", "place"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 2.0}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"n": 0}, "n"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"logit_bias": {100_000: 1.0}}, "logit_bias"),
        ({"stop_ids": (-1,)}, "stop_ids"),
        ({"stop": ("",)}, "stop"),
        ({"model": "another"}, "model"),
        ({"prompt": [100_000]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1] * 512}, "prompt"),
        ({"guide": Regex("(")}, "guide"),
        ({"guide": Regex("a"), "ignore_eos": True}, "guide"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_field(how: dict[str, Any], place: str) -> None:
    heard: list[Piece] = []
    with opened(real()) as engine:
        with pytest.raises(RowError) as refused:
            engine.submit(request(**how), heard.append)
        assert engine.stats().running == engine.stats().waiting == 0
    assert refused.value.place == place
    assert not heard


def test_more_than_may_wait_are_refused_until_others_end() -> None:
    with opened(real(), slots=1, max_waiting=1) as engine:
        tickets = [engine.submit(request(max_new_tokens=400), lambda piece: None) for _ in range(2)]
        with pytest.raises(Busy):
            engine.submit(request(), lambda piece: None)
        for ticket in tickets:
            ticket.cancel()
        engine.close(seconds=10)


def test_an_answer_ends_at_the_length_of_the_model() -> None:
    with opened(real(), max_length=40) as engine:
        pieces = ask(engine, max_new_tokens=None, ignore_eos=True)
        assert pieces[-1].finish_reason == "length"
        assert engine.count(request()) + pieces[-1].completion_tokens == engine.max_length == 40


def test_the_stop_that_ended_it_is_told() -> None:
    with opened(parrot("one two", id_of(END))) as engine:
        assert ask(engine)[-1].stop is None  # the template's own
    with opened(parrot("one two")) as engine:
        last = ask(engine, stop=("wo", " t"))[-1]
        assert (last.finish_reason, last.stop) == ("stop", " t")
    with opened(parrot("one two")) as engine:
        stop = byte_tokenizer()("w").input_ids[0]
        pieces = ask(engine, stop_ids=(stop,))
        assert (text_of(pieces), pieces[-1].stop) == ("one t", stop)


def test_ignore_eos_goes_on_after_stop_tokens() -> None:
    with opened(parrot("a", id_of(END))) as engine:
        pieces = ask(engine, ignore_eos=True, max_new_tokens=3)
    assert (text_of(pieces), pieces[-1].finish_reason) == (f"a{END}{END}", "length")


def test_n_answers_are_drawn_each_by_its_own_numbers() -> None:
    with opened(real(**LOUD)) as engine:
        texts = ["", "", ""]
        for piece in answers(engine, request(n=3, temperature=1.5, seed=4, max_new_tokens=9)):
            texts[piece.index] += piece.text
        assert len(set(texts)) == 3
        assert texts[0] == said(engine, temperature=1.5, seed=4, max_new_tokens=9)


def test_scored_tokens_join_to_the_text() -> None:
    with opened(real(**LOUD)) as engine:
        pieces = ask(engine, logprobs=3, prompt_logprobs=1, temperature=1.0, seed=1)
        tokens = [token for piece in pieces for token in piece.tokens]
        assert len(tokens) == 12
        assert b"".join(token.data for token in tokens).decode(errors="replace") == text_of(pieces)
        assert all(len(token.top) == 3 for token in tokens)
        prompt = [token for piece in pieces for token in piece.prompt]
        assert [token.id for token in prompt] == engine.encode(request())
        assert prompt[0].logprob is None and prompt[1].logprob is not None
        (only,) = ask(engine, prompt_logprobs=0, max_new_tokens=0)
        assert [token.logprob for token in only.prompt] == pytest.approx(
            [token.logprob for token in prompt], abs=1e-4
        )
        assert (only.text, only.finish_reason, only.completion_tokens) == ("", "length", 0)


@pytest.mark.parametrize("text", ["a b", "Größe 🙂", "\n\t x"])
def test_bytes_of_tokens_join_to_the_text(text: str) -> None:
    tokenizer = byte_tokenizer()
    data = TokenBytes(tokenizer)
    assert b"".join(map(data.of, tokenizer(text).input_ids)).decode() == text


def test_prompts_as_text_and_ids() -> None:
    with opened(real(**LOUD)) as engine:
        ids = engine.encode(request())
        written = byte_tokenizer().decode(ids)
        assert said(engine, prompt=ids) == said(engine, prompt=written) == said(engine)


def test_defaults_of_the_checkpoint_count_where_a_request_says_nothing() -> None:
    run = real(**LOUD)
    config = run.loads().model.generation_config
    config.do_sample, config.top_k, config.repetition_penalty = True, 1, 1.7
    with opened(run) as engine, opened(run, sampling_defaults=False) as plain:
        assert (engine.defaults.temperature, engine.defaults.top_k) == (1.0, 1)
        expected = said(plain, repetition_penalty=1.7)
        assert said(engine) == expected != said(plain)
        assert said(engine, repetition_penalty=1.0, temperature=0.0) == said(plain)


def test_an_error_ends_all_running_answers_and_the_engine_goes_on() -> None:
    run = real(**LOUD)
    model = run.loads().model
    with opened(run, slots=2) as engine:
        expected, forward = said(engine), model.forward

        def broken(*args: Any, **kwargs: Any) -> Any:
            model.forward = forward
            raise ValueError("no more memory")

        model.forward = broken
        ends: list[Piece] = []
        ended = threading.Event()

        def heard(piece: Piece) -> None:
            ends.extend([piece] if piece.finish_reason else [])
            if len(ends) == 4:
                ended.set()

        for seed in range(4):
            engine.submit(request(max_new_tokens=5, seed=seed), heard)
        assert ended.wait(30)
        reasons = [piece.finish_reason for piece in ends]
        assert "error" in reasons and "length" in reasons
        assert {piece.error for piece in ends} == {"ValueError: no more memory", None}
        assert said(engine) == expected
        assert engine.stats().running == engine.stats().waiting == 0


def test_close_lets_answers_finish_for_a_while() -> None:
    heard: list[Piece] = []
    engine = opened(real())
    engine.submit(request(max_new_tokens=20, ignore_eos=True), heard.append)
    engine.close(seconds=30)
    assert heard[-1].finish_reason == "length"
    with pytest.raises(RunError, match="closed"):
        engine.submit(request(), heard.append)
    with pytest.raises(RunError, match="closed"):
        engine.embed(["a"])
