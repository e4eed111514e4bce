"""Answers of the engine hf depend on their requests alone: not on other answers, nor on the global
random state, which they leave as it was."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import numpy as np  # noqa: E402

from engine_setup import byte_tokenizer, opened, real, request, text_of  # noqa: E402
from tunewright import TunewrightError  # noqa: E402
from tunewright.inference import GenerateRequest, InferenceEngine, answers  # noqa: E402
from tunewright_conformance.doubles import FakeRun  # noqa: E402

REQUESTS = [
    request("hi", max_new_tokens=30, temperature=1.3, seed=7),
    request("good day to you", max_new_tokens=40, temperature=0.8, top_p=0.9, seed=7),
    request("?", max_new_tokens=25, temperature=2.0, top_k=20, seed=0),
    request("hi", max_new_tokens=30, temperature=1.3, repetition_penalty=1.4, seed=7),
    request("a b", max_new_tokens=20, temperature=1.0, top_p=0.7, top_k=9, seed=123),
    request("hi", max_new_tokens=30),
]
#: weights large enough that what comes next depends on what was there
LOUD = {"initializer_range": 0.5}
#: lengths on both sides of 32, where this RoPE changes its frequencies
DYNAMIC_ROPE = {
    "max_position_embeddings": 32,
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
}


def with_lora(run: FakeRun) -> FakeRun:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    run.loads().model = get_peft_model(run.loads().model, config)
    return run


def answer(engine: InferenceEngine, asked: GenerateRequest) -> str:
    return text_of(list(answers(engine, asked)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: real(**LOUD),
        lambda: with_lora(real(**LOUD)),
        lambda: real(**LOUD, **DYNAMIC_ROPE),
    ],
    ids=["full", "lora", "dynamic-rope"],
)
def test_answers_at_once_equal_answers_one_at_a_time(make: Callable[[], FakeRun]) -> None:
    run = make()
    engine = opened(run)
    alone = [answer(engine, asked) for asked in REQUESTS]
    assert len(set(alone)) == len(REQUESTS)  # each setting makes a difference
    for order in (REQUESTS, REQUESTS[::-1]):
        ready = threading.Barrier(len(order))

        def ask(asked: GenerateRequest, ready: Any = ready) -> str:
            ready.wait()
            return answer(engine, asked)

        with ThreadPoolExecutor(len(order)) as pool:
            at_once = list(pool.map(ask, order))
        assert at_once == (alone if order is REQUESTS else alone[::-1])
    assert run.called["load_policy"] == 1


def test_streams_that_are_read_in_turns_do_not_wait_for_each_other() -> None:
    engine = opened(real())
    alone = [answer(engine, asked) for asked in REQUESTS[:2]]
    streams = [answers(engine, asked) for asked in REQUESTS[:2]]
    texts = ["", ""]
    for _ in range(60):
        for number, stream in enumerate(streams):
            piece = next(stream, None)
            texts[number] += piece.text if piece else ""
    assert texts == alone


def test_an_error_leaves_the_model_to_the_next_answer() -> None:
    engine = opened(real())
    expected = answer(engine, REQUESTS[0])
    with pytest.raises(TunewrightError, match="temperature"):
        answer(engine, request(temperature=-1.0))
    assert answer(engine, REQUESTS[0]) == expected


@pytest.mark.parametrize("seed", [None, 5])
def test_the_global_random_state_stays_as_it_was(seed: int | None) -> None:
    engine = opened(real())
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    answer(engine, request(temperature=1.5, seed=seed))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_the_global_random_state_does_not_count() -> None:
    engine, asked = opened(real()), request(temperature=1.5, seed=3)
    first = answer(engine, asked)
    torch.manual_seed(99)
    assert answer(engine, asked) == first


def test_without_a_seed_answers_differ_even_when_the_global_one_is_set() -> None:
    engine = opened(real())
    texts = set()
    for _ in range(4):
        torch.manual_seed(0)
        texts.add(answer(engine, request(temperature=2.0)))
    assert len(texts) == 4


def test_a_shorter_answer_is_the_beginning_of_a_longer_one() -> None:
    run = real()
    engine = opened(run)
    run.loads().tokenizer = byte_tokenizer()
    short, long = (
        answer(engine, request(temperature=0.5, seed=2, max_new_tokens=length))
        for length in (10, 40)
    )
    assert long.startswith(short.rstrip("\ufffd"))
    assert len(long) > len(short)
