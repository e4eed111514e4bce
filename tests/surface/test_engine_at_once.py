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
from transformers.generation import (  # noqa: E402
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engine_setup import Run, byte_tokenizer, parrot, real, request, text_of  # noqa: E402
from tunewright.types import GenerateRequest  # noqa: E402
from tunewright_engine_hf import HfEngine  # noqa: E402
from tunewright_hf.models.sampling import InverseCdfSampler, sampling_processors  # noqa: E402

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


def with_lora(run: Run) -> Run:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    run.loaded.model = get_peft_model(run.loaded.model, config)
    return run


def answer(engine: HfEngine, run: Run, asked: GenerateRequest) -> str:
    return text_of(list(engine.generate(run=run, request=asked)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: real(**LOUD),
        lambda: with_lora(real(**LOUD)),
        lambda: real(**LOUD, **DYNAMIC_ROPE),
    ],
    ids=["full", "lora", "dynamic-rope"],
)
def test_answers_at_once_equal_answers_one_at_a_time(make: Callable[[], Run]) -> None:
    run, engine = make(), HfEngine(None)
    alone = [answer(engine, run, asked) for asked in REQUESTS]
    assert len(set(alone)) == len(REQUESTS)  # each setting makes a difference
    for order in (REQUESTS, REQUESTS[::-1]):
        ready = threading.Barrier(len(order))

        def ask(asked: GenerateRequest, ready: Any = ready) -> str:
            ready.wait()
            return answer(engine, run, asked)

        with ThreadPoolExecutor(len(order)) as pool:
            at_once = list(pool.map(ask, order))
        assert at_once == (alone if order is REQUESTS else alone[::-1])
    assert run.loads == 1


def test_streams_that_are_read_in_turns_do_not_wait_for_each_other() -> None:
    run, engine = real(), HfEngine(None)
    alone = [answer(engine, run, asked) for asked in REQUESTS[:2]]
    streams = [engine.generate(run=run, request=asked) for asked in REQUESTS[:2]]
    texts = ["", ""]
    for _ in range(60):
        for number, stream in enumerate(streams):
            piece = next(stream, None)
            texts[number] += piece.text if piece else ""
    assert texts == alone


def test_an_answer_waits_until_the_one_before_is_closed() -> None:
    run, engine = parrot("abc"), HfEngine(None)
    first = engine.generate(run=run, request=request(max_new_tokens=100_000))
    next(first)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(answer, engine, run, request(max_new_tokens=2))
        with pytest.raises(TimeoutError):
            second.result(0.3)
        first.close()
        assert len(second.result(10)) == 2


def test_an_error_leaves_the_model_to_the_next_answer() -> None:
    run, engine = real(), HfEngine(None)
    expected = answer(engine, run, REQUESTS[0])
    with pytest.raises(ValueError, match="temperature"):
        answer(engine, run, request(temperature=-1.0))
    assert answer(engine, run, REQUESTS[0]) == expected


@pytest.mark.parametrize("seed", [None, 5])
def test_the_global_random_state_stays_as_it_was(seed: int | None) -> None:
    run, engine = real(), HfEngine(None)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    answer(engine, run, request(temperature=1.5, seed=seed))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_the_global_random_state_does_not_count() -> None:
    run, engine, asked = real(), HfEngine(None), request(temperature=1.5, seed=3)
    first = answer(engine, run, asked)
    torch.manual_seed(99)
    assert answer(engine, run, asked) == first


def test_without_a_seed_answers_differ_even_when_the_global_one_is_set() -> None:
    run, engine = real(), HfEngine(None)
    texts = set()
    for _ in range(4):
        torch.manual_seed(0)
        texts.add(answer(engine, run, request(temperature=2.0)))
    assert len(texts) == 4


def test_a_shorter_answer_is_the_beginning_of_a_longer_one() -> None:
    run, engine = real(), HfEngine(None)
    run.loaded.tokenizer = byte_tokenizer()
    short, long = (
        answer(engine, run, request(temperature=0.5, seed=2, max_new_tokens=length))
        for length in (10, 40)
    )
    assert long.startswith(short.rstrip("\ufffd"))
    assert len(long) > len(short)


# ---- the sampler ---------------------------------------------------------------------------------


def drawn(scores: Any, count: int, **how: Any) -> np.ndarray:
    """Frequency of each token in `count` rows that all have these scores."""
    generators = [np.random.default_rng([3, row]) for row in range(count)]
    settings = {"prompt_length": 2, "max_new_tokens": 1, "temperature": 1.0, **how}
    steps = sampling_processors(generators, **settings)
    chosen = steps(torch.zeros(count, 2, dtype=torch.long), scores.expand(count, -1).clone())
    assert (chosen == 0).sum(-1).tolist() == [1] * count  # one token a row
    assert torch.isinf(chosen).sum(-1).tolist() == [scores.shape[0] - 1] * count
    return np.bincount(chosen.argmax(-1).numpy(), minlength=scores.shape[0]) / count


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    scores = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5])
    found = drawn(scores, 20_000, temperature=0.7)
    assert np.abs(found - (scores / 0.7).softmax(-1).numpy()).max() < 0.01


@pytest.mark.parametrize("how", [{"top_k": 2}, {"top_p": 0.8}, {"top_k": 3, "top_p": 0.7}])
def test_only_tokens_that_top_k_and_top_p_leave_are_drawn(how: dict[str, Any]) -> None:
    scores = torch.tensor([[0.0, 2.0, 1.0, -1.0, 0.5]])
    left = TemperatureLogitsWarper(1.0)(None, scores)
    left = TopKLogitsWarper(how["top_k"])(None, left) if "top_k" in how else left
    left = TopPLogitsWarper(how["top_p"])(None, left) if "top_p" in how else left
    found = drawn(scores[0], 5_000, **how)
    assert (found > 0).tolist() == (left[0] > -torch.inf).tolist()
    assert np.abs(found - left[0].softmax(-1).numpy()).max() < 0.03


def test_numbers_at_the_borders_choose_tokens_that_can_be() -> None:
    scores = torch.tensor([[-torch.inf, 1.0, 1.0, -torch.inf]])
    for number, token in ((0.0, 1), (0.4999, 1), (0.5, 2), (float(np.nextafter(1, 0)), 2)):
        sampler = InverseCdfSampler(torch.tensor([[number]], dtype=torch.float64), 0)
        assert int(sampler(torch.zeros(1, 0, dtype=torch.long), scores).argmax()) == token


def test_a_row_is_drawn_alike_in_any_batch() -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(3, 2, dtype=torch.long)

    def choose(rows: list[int]) -> list[int]:
        steps = sampling_processors(
            [np.random.default_rng([9, row]) for row in rows],
            prompt_length=2,
            max_new_tokens=4,
            temperature=1.0,
        )
        return steps(ids[rows], scores[rows]).argmax(-1).tolist()

    assert choose([0, 1, 2]) == [choose([row])[0] for row in range(3)]
