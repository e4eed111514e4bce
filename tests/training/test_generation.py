"""Generation in evaluation, and its similarity to the reference answers."""

import math
from functools import cache
from types import SimpleNamespace

import datasets
import pytest
import torch
from evaluation_setup import same, train
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resume import MODELS, no_pickle, tensors
from training_setup import loaded, logs_of, model, rows, run_training, tokenizer
from transformers import AutoModelForCausalLM

from tunewright import RecipeError
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.distributed.sharding import ShardingStrategy
from tunewright_hf.training.rollouts import last_answer
from tunewright_sft import METRICS, Sft
from tunewright_sft.generation import Generation
from tunewright_sft.similarity import Similarity, common_subsequence, tokens

__all__ = ["no_pickle"]  # a fixture


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([-100, -100, 5, 6], (2, 4)),
        ([-100, 5, -100, 6, 7, -100], (3, 5)),
        ([5, 6], (0, 2)),
        ([-100, -100], (0, 0)),
        ([], (0, 0)),
    ],
)
def test_the_last_answer_of_a_row(labels, expected):
    assert last_answer(labels) == expected


def test_similarity_by_hand():
    """3 of 4 characters, 2 of 3 pairs; BLEU: ¾, ⅔, ½, and half of 1 for the run of four that is not
    shared."""
    found = Similarity()("我喜欢猫", "我喜欢狗")
    bleu = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    expected = {"exact_match": 0, "rouge-1": 75, "rouge-2": 200 / 3, "rouge-l": 75, "bleu-4": bleu}
    assert found == pytest.approx(expected)
    # of 4 and 5 words 3 are shared, and 2 in order; no pair of words is
    found = Similarity()("the cat sat down", "down the mat sat the")
    assert (found["rouge-1"], found["rouge-2"], found["rouge-l"]) == pytest.approx(
        (600 / 9, 0, 400 / 9)
    )
    assert Similarity()("Yes.", " Yes.\n") == pytest.approx(
        {"exact_match": 100, "rouge-1": 100, "rouge-2": 100, "rouge-l": 100, "bleu-4": 100}
    )
    assert set(Similarity()("", "words").values()) == {0.0}
    # for being short
    assert Similarity()("a b", "a b c d")["bleu-4"] == pytest.approx(100 * math.exp(1 - 4 / 2))


def test_words_of_scripts_with_and_without_spaces():
    assert tokens("Hello, 世界! don't") == ["Hello", ",", "世", "界", "!", "don", "'", "t"]
    assert tokens("カタ 한국어 हिन्दी") == ["カ", "タ", "한국어", "हिन्दी"]


@cache
def longest_common(one: tuple, other: tuple) -> int:
    """By definition."""
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + longest_common(one[:-1], other[:-1])
    return max(longest_common(one[:-1], other), longest_common(one, other[:-1]))


@settings(deadline=None)
@given(st.text("abc ", max_size=20), st.text("abc ", max_size=20))
def test_similarity_of_any_texts(one, other):
    left, right = tokens(" ".join(one)), tokens(" ".join(other))
    longest = longest_common(tuple(left), tuple(right))
    assert common_subsequence(left, right) == longest == common_subsequence(right, left)
    found, back = (
        Similarity()(" ".join(a), " ".join(b)) for a, b in ((left, right), (right, left))
    )
    assert all(0 <= value <= 100 for value in found.values())
    assert all(found[name] == pytest.approx(back[name]) for name in found if name != "bleu-4")
    assert (
        left != right
        or not left
        or found["bleu-4"] == found["rouge-l"] == found["exact_match"] == 100
    )


def test_metrics_are_those_of_answers_written_one_by_one(tmp_path):
    """Reported of a batch with rows of many lengths; here each prompt is answered alone, by
    transformers."""
    sets = rows(9, seed=4)
    run, result = run_training(
        tmp_path, loaded(model()), evals={"it": sets}, generate=6, max_steps=40
    )
    trained_model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    words, found = tokenizer(), []
    for row in sets:
        start = last_answer(row["labels"])[0]
        ids = torch.tensor([row["input_ids"][:start]])
        written = trained_model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
        )
        answer = words.decode([token for token in written[0, start:].tolist() if token != 2])
        found.append(Similarity()(answer, words.decode(row["input_ids"][start:])))
    assert len({row["rouge-1"] for row in found}) > 2  # it has learned something, and not all
    means = {f"it_{name}": sum(each[name] for each in found) / len(found) for name in found[0]}
    assert {name: result.metrics[name] for name in means} == pytest.approx(means)
    assert (
        next(event.metrics.keys() for event in run.events if type(event).__name__ == "Evaluated")
        >= found[0].keys()
    )


@pytest.mark.parametrize("kind", MODELS)
def test_answers_leave_training_alone(tmp_path, kind):
    """With dropout: what is trained is the same bits, and so is the randomness after it."""
    made = [MODELS[kind]() for _ in range(2)]
    with_answers, result = train(tmp_path / "a", made[0], eval_steps=1, save_steps=12, generate=5)
    without, _ = train(tmp_path / "b", made[1], eval_steps=3, save_steps=12)
    assert "it_bleu-4" in result.metrics
    assert logs_of(with_answers) == logs_of(without)
    ends = [tmp_path / name / "checkpoints" / "step-12" for name in "ab"]
    for name in ("weights", "optimizer", "rng-0"):
        one, other = (tensors(load_state(end, name)) for end in ends)
        assert same(one, other)
    assert load_state(ends[0], "rng-0")["python"] == load_state(ends[1], "rng-0")["python"]
    assert load_state(ends[0], "rng-0")["numpy"] == load_state(ends[1], "rng-0")["numpy"]


def test_rows_without_an_answer_or_a_prompt_are_left_out(tmp_path):
    ids = [5, 8, 11]
    table = [{"input_ids": ids, "labels": labels} for labels in ([-100] * 3, ids, [-100, 8, 11])]
    all_, one = datasets.Dataset.from_list(table), datasets.Dataset.from_list(table[2:])
    none = datasets.Dataset.from_list(table[:2])
    evals = {"all": all_, "one": one, "none": none}
    _, result = run_training(tmp_path, loaded(model()), evals=evals, generate=2, max_steps=1)
    names = {name.partition("_")[2] for name in result.metrics if name.startswith("one_")} - {
        "loss"
    }
    assert names == set(METRICS)
    assert all(result.metrics[f"all_{name}"] == result.metrics[f"one_{name}"] for name in names)
    assert not names & {
        name.partition("_")[2] for name in result.metrics if name.startswith("none_")
    }


def test_what_is_best_may_be_what_is_written(tmp_path):
    how = {"load_best_model_at_end": True, "metric_for_best_model": "rouge-l", "generate": 4}
    run, result = train(tmp_path, **how)
    written = [
        event.metrics["rouge-l"] for event in run.events if type(event).__name__ == "Evaluated"
    ]
    assert result.metrics["best_step"] == 2 * (1 + written.index(max(written)))


def test_a_model_that_is_spread_cannot_answer():
    with pytest.raises(RecipeError, match=r"predict_with_generate: generation needs all param"):
        Generation(SimpleNamespace(sharding=ShardingStrategy()), (), 4)


def test_without_the_library_it_is_reported_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("tunewright_sft.find_spec", lambda name: None)
    assert Sft(Sft.Options()).options.predict_with_generate is False
    with pytest.raises(
        RecipeError, match=r"sacrebleu is not installed \(pip install 'tunewright-sft\[metrics\]'"
    ):
        Sft(Sft.Options(predict_with_generate=True))
