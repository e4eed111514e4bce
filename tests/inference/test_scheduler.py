"""The slot scheduler on a tiny Llama: what a row gets depends on the row alone."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM  # noqa: E402

from tunewright_hf.inference.rows import Row, RowSampling  # noqa: E402
from tunewright_hf.inference.scheduler import Scheduler  # noqa: E402

VOCABULARY = 50


def llama(**more: Any) -> Any:
    """Large weights: what comes next depends on what was there."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048}
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=None,
        **sizes | heads | more,
    )
    return LlamaForCausalLM(config).eval()


def prompt(seed: int, length: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, VOCABULARY, length)]


def row(seed: int, length: int = 10, count: int = 20, **more: Any) -> Row:
    return Row(prompt(seed, length), count, random=np.random.default_rng(seed), **more)


def run(model: Any, *rows: Row, **how: Any) -> list[list[int]]:
    """Tokens of the rows, all added at once."""
    scheduler = Scheduler(model, **how)
    scheduler.add(rows)
    with torch.no_grad():
        scheduler.run()
    assert scheduler.running == scheduler.cache_tokens == 0
    return [each.tokens for each in rows]


def shapes_of(model: Any) -> list[tuple[int, ...]]:
    """Shapes of the inputs of each call, as it comes."""
    shapes: list[tuple[int, ...]] = []

    def see(module: Any, args: Any, named: dict[str, Any]) -> None:
        shapes.append(tuple(named["input_ids"].shape))

    model.register_forward_pre_hook(see, with_kwargs=True)
    return shapes


def greedy(model: Any, *rows: Row, **how: Any) -> list[list[int]]:
    """Tokens of the rows as transformers generates them."""
    found = []
    for each in rows:
        ids = torch.tensor([each.prompt])
        config = GenerationConfig(max_new_tokens=each.max_new_tokens, pad_token_id=0, **how)
        answer = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
        found.append(answer[0, len(each.prompt) :].tolist())
    return found


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "hot": {"temperature": 1.5},
    "top_k": {"temperature": 2.0, "top_k": 5},
    "top_p": {"temperature": 2.0, "top_p": 0.5},
    "min_p": {"temperature": 2.0, "min_p": 0.3},
    "repetition": {"repetition_penalty": 1.5},
    "presence": {"presence_penalty": 2.0},
    "frequency": {"frequency_penalty": 1.0},
    "bias": {"logit_bias": ((7, 30.0), (8, -100.0))},
}


def test_each_row_has_its_own_settings_whoever_is_beside_it() -> None:
    model = llama()

    def rows() -> list[Row]:
        return [row(3, sampling=RowSampling(**settings)) for settings in SETTINGS.values()]

    alone = [run(model, each)[0] for each in rows()]
    assert len({tuple(tokens) for tokens in alone}) == len(SETTINGS)  # each makes a difference
    assert run(model, *rows()) == alone
    assert run(model, *rows(), slots=2, prefill_tokens=4) == alone


def test_a_repetition_penalty_is_that_of_generate() -> None:
    model, asked = llama(), [row(1), row(2, 30)]
    expected = greedy(model, *asked, repetition_penalty=1.3)
    assert expected != greedy(model, *asked)
    for each in asked:
        each.sampling = RowSampling(repetition_penalty=1.3)
    assert run(model, *asked) == expected


def test_log_probabilities_are_those_of_the_model() -> None:
    model, scores = llama(), []
    asked = row(4, count=5, logprobs=3, prompt_logprobs=2, sampling=RowSampling(temperature=2.0))
    asked.on_token = lambda _row, token, score: scores.append(score) or True
    run(model, asked, row(5), prefill_tokens=1)
    ids = torch.tensor([asked.prompt + asked.tokens])
    with torch.no_grad():
        expected = model(ids).logits[0].log_softmax(-1)
    found = asked.prompt_scores[1:] + scores
    assert asked.prompt_scores[0].logprob is None and len(scores) == 5
    for place, score in enumerate(found):
        assert score.token == ids[0, place + 1]
        assert score.logprob == pytest.approx(float(expected[place, score.token]), abs=1e-4)
        best = expected[place].topk(3 if place >= 9 else 2)
        assert [token for token, _ in score.top] == best.indices.tolist()
        assert [value for _, value in score.top] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # PEFT's, of generate
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_virtual_tokens_stand_before_every_prompt(kind: str) -> None:
    import peft

    rows = [row(seed, 5 + 9 * seed) for seed in range(4)]
    plain = greedy(llama(), *rows)
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(llama(), config).eval()
    expected = greedy(model, *rows)
    assert expected != plain
    assert run(model, *rows, slots=3) == expected


def test_stop_ids_end_an_answer() -> None:
    model = llama()
    whole = run(model, row(1))[0]
    stop = whole[6]
    asked = row(1, stop_ids=frozenset([stop]))
    assert run(model, asked)[0] == whole[: whole.index(stop) + 1]
    assert asked.reason == "stop"


def test_rows_join_and_leave_while_columns_grow_and_are_dropped() -> None:
    model, rows = llama(), [row(n, 5 + n * 7 % 40, 10 + n * 31 % 150) for n in range(24)]
    assert run(model, *rows, slots=3) == greedy(model, *rows)


def test_long_and_short_rows_are_computed_apart() -> None:
    model, rows = llama(), [row(1, 900, 30), row(2, 5, 30), row(3, 1200, 10), row(4, 20, 60)]
    scheduler = Scheduler(model, prefill_tokens=300)
    scheduler.add(rows)
    groups = set()
    with torch.no_grad():
        while scheduler.step():
            groups.add(tuple(sorted(len(group.rows) for group in scheduler._groups)))
    assert [each.tokens for each in rows] == greedy(model, *rows)
    assert (2, 2) in groups


def test_a_long_prompt_is_computed_in_parts_between_the_steps_of_others() -> None:
    model, first, long = llama(), row(1, count=60), row(2, 1000, 3)
    scheduler = Scheduler(model, prefill_tokens=100)
    scheduler.add([first])
    with torch.no_grad():
        scheduler.step()
        scheduler.add([long])
        before = len(first.tokens)
        while not long.tokens:
            scheduler.step()
        assert len(first.tokens) - before == 10
        scheduler.run()
    assert [first.tokens, long.tokens] == greedy(model, first, long)


def test_most_waiting_prompts_are_computed_before_the_rest_in_even_parts() -> None:
    shapes, few = shapes_of(model := llama()), [row(seed, 5, 2) for seed in range(3)]
    run(model, *(row(seed, 10, 2) for seed in range(9)), prefill_tokens=60)
    assert shapes == [(2, 10), (3, 10), (2, 10), (2, 10), (9, 1)]  # three fit: five, then four
    run(model, *few, prefill_tokens=60)
    assert shapes[5:] == [(3, 5), (3, 1)]  # not worth several parts


def test_equal_prompts_are_computed_once() -> None:
    model = llama()

    def rows() -> list[Row]:
        hot = RowSampling(temperature=2.0)
        return [Row(prompt(1, 40), 12, hot, random=np.random.default_rng(n)) for n in range(5)]

    alone = [run(model, each)[0] for each in rows()]
    assert len({tuple(tokens) for tokens in alone}) == 5
    shapes = shapes_of(model)
    assert run(model, *rows()) == alone
    assert shapes[0] == (1, 40) and set(shapes[1:]) == {(5, 1)}


def test_beginnings_of_earlier_rows_are_used_again() -> None:
    model, shared = llama(), prompt(9, 60)
    asked = [Row(shared + prompt(seed, 10 + seed), 15) for seed in range(5)]
    scheduler = Scheduler(model, reuse_tokens=300)
    with torch.no_grad():
        for rows in (asked[:1], asked[1:4], asked[4:]):
            scheduler.add(rows)
            scheduler.run()
    assert [each.tokens for each in asked] == greedy(model, *asked)
    assert scheduler.reused_tokens >= 4 * 58
    assert scheduler._prefixes._tokens <= 300


def test_the_cache_stays_below_its_limit() -> None:
    model, most = llama(), 0
    rows = [row(seed, 20 + seed, 60) for seed in range(12)]
    scheduler = Scheduler(model, cache_tokens=3 * 100)
    scheduler.add(rows)
    running = set()
    with torch.no_grad():
        while scheduler.step():
            running.add(scheduler.running)
            most = max(most, scheduler.cache_tokens)
    assert [each.tokens for each in rows] == greedy(model, *rows)
    assert max(running) == 3
    assert most <= 3 * 128  # in blocks of 64 columns


def test_cancelled_rows_are_gone_after_one_step() -> None:
    model, ends = llama(), []
    rows = [row(seed, count=50) for seed in range(4)]
    for each in rows:
        each.on_end = lambda which, reason, error: ends.append((which, reason))
    scheduler = Scheduler(model, slots=2)
    scheduler.add(rows)
    with torch.no_grad():
        scheduler.step()
        scheduler.step()
        scheduler.cancel(rows[0])  # runs
        scheduler.cancel(rows[3])  # waits
        scheduler.step()
        assert ends == [(rows[3], "cancelled"), (rows[0], "cancelled")]
        scheduler.run()
    assert [len(ends), rows[1].reason, rows[2].reason] == [4, "length", "length"]
    assert [rows[1].tokens, rows[2].tokens] == greedy(model, *rows[1:3])


def test_an_error_ends_the_running_rows_and_no_others() -> None:
    model = llama()
    rows = [row(seed, count=8) for seed in range(4)]
    ends: list[Any] = []
    for each in rows:
        each.on_end = lambda which, reason, error: ends.append((reason, error))
    scheduler, forward = Scheduler(model, slots=2), model.forward
    scheduler.add(rows)
    with torch.no_grad():
        scheduler.step()

        def broken(*args: Any, **kwargs: Any) -> Any:
            raise ValueError("out of order")

        model.forward = broken
        scheduler.step()
        assert ends == [("error", "ValueError: out of order")] * 2
        model.forward = forward
        while scheduler.step():
            pass
    assert [reason for reason, _ in ends[2:]] == ["length"] * 2
    assert [rows[2].tokens, rows[3].tokens] == greedy(model, *rows[2:])


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 4.0},
        {
            "rope_type": "longrope",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "long_factor": [3.0] * 4,
            "short_factor": [1.0] * 4,
        },
    ],
    ids=["dynamic", "longrope"],
)
def test_frequencies_that_depend_on_the_longest_row_are_each_rows_own(rope: dict[str, Any]) -> None:
    length = 32 if rope["rope_type"] == "dynamic" else 128
    settings = {"rope_theta": 10_000.0} | rope

    def fresh() -> Any:
        return llama(max_position_embeddings=length, rope_parameters=settings)

    def rows() -> list[Row]:
        sizes = [(20, 30), (5, 10), (40, 10), (8, 12), (10, 40)]
        return [row(seed, *size) for seed, size in enumerate(sizes)]

    alone = [greedy(fresh(), each)[0] for each in rows()]
    assert run(fresh(), *rows()) == alone
