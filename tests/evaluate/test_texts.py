"""Metrics of texts: against the libraries they come from, and by hand."""

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from tunewright_evaluators.generation import class_of, macro_f1, row_scores
from tunewright_evaluators.texts import CorpusMetrics, normalised, rouge, tokenizer, word_f1

METRICS = ["exact_match", "accuracy", "f1", "bleu", "chrf", "rouge", "json_valid", "tool_calls"]


def row(said: str, wanted: str, calls: list[tuple[str, dict]] = (), right: list = ()) -> dict:
    def message(text: str, found: list) -> dict:
        functions = [{"function": {"name": name, "arguments": given}} for name, given in found]
        return {"role": "assistant", "content": text, "tool_calls": functions}

    return {"row": 1, "prediction": message(said, calls), "label": message(wanted, right)}


def test_english_rouge_is_the_librarys() -> None:
    wanted, said = "The cat sat on the mat, quietly.", "A cat quietly sat on a mat"
    own = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(wanted, said)
    assert rouge(said, wanted) == {name: each.fmeasure for name, each in own.items()}


def test_chinese_rouge_is_by_characters() -> None:
    found = rouge("今天天气很好", "今天天气不错")  # 4 of 6 characters, in order
    assert found["rouge1"] == pytest.approx(4 / 6)
    assert found["rouge2"] == pytest.approx(3 / 5)
    assert found["rougeL"] == pytest.approx(4 / 6)
    assert rouge("Python很好", "Python不好")["rouge1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        ([("The cat sat here today.", "The cat sat here yesterday."), ("Yes it is", "Yes")], "13a"),
        ([("今天天气很好，我们走吧", "今天天气不错，我们走吧"), ("是", "是的")], "zh"),
    ],
)
def test_bleu_and_chrf_are_sacrebleus(texts: list[tuple[str, str]], name: str) -> None:
    said, wanted = [one for one, _ in texts], [[two for _, two in texts]]
    assert tokenizer(wanted[0]) == name
    found = CorpusMetrics(["bleu", "chrf"])(texts)
    assert found["bleu"] == sacrebleu.corpus_bleu(said, wanted, tokenize=name).score
    assert found["chrf"] == sacrebleu.corpus_chrf(said, wanted).score
    assert CorpusMetrics(["f1"])(texts) == {}


@pytest.mark.parametrize(
    ("said", "wanted", "exact", "accuracy", "f1"),
    [
        ("42", "42\n", 100, 100, 100),
        ("The Paris.", "paris", 0, 100, 100),
        ("in Paris", "Paris", 0, 0, 200 / 3),
        ("没有", "没有。", 0, 100, 100),
        ("", "Paris", 0, 0, 0),
    ],
)
def test_matches(said: str, wanted: str, exact: float, accuracy: float, f1: float) -> None:
    found = row_scores(row(said, wanted), METRICS, None)
    assert (found["exact_match"], found["accuracy"]) == (exact, accuracy)
    assert found["f1"] == pytest.approx(f1)


def test_normalised() -> None:
    assert normalised("  The  answer, an “A”! ") == "answer"
    assert word_f1("", "") == 1


def test_json_is_asked_of_answers_that_are_json() -> None:
    assert "json_valid" not in row_scores(row("{}", "no"), METRICS, None)
    assert row_scores(row('```json\n{"a": 1}\n```', '{"a": 1}'), METRICS, None)["json_valid"] == 100
    assert row_scores(row('{"a": 1', '{"a": 1}'), METRICS, None)["json_valid"] == 0


def test_tool_calls_are_compared_by_parsed_arguments() -> None:
    right = [("weather", {"city": "Paris", "days": 2}), ("time", {})]

    def scores(*calls: tuple[str, dict]) -> tuple[float, float]:
        found = row_scores(row("", "", list(calls), right), METRICS, None)
        return found["tool_calls"], found["tool_names"]

    assert scores(("time", {}), ("weather", {"days": 2, "city": "Paris"})) == (100, 100)
    assert scores(("time", {}), ("weather", {"days": 3, "city": "Paris"})) == (0, 100)
    assert scores(("weather", {"days": 2, "city": "Paris"})) == (0, 0)
    assert row_scores(row("x", "y", [("time", {})]), METRICS, None)["tool_calls"] == 0
    assert "tool_calls" not in row_scores(row("x", "y"), METRICS, None)


def test_classes() -> None:
    classes = ["positive", "negative", "not positive"]
    assert class_of("Positive: it is.", classes) == "positive"
    assert class_of("not positive", classes) == "not positive"
    assert class_of("It is positive", classes) is None
    assert row_scores(row("negative, I think", "Negative"), METRICS, classes)["accuracy"] == 100
    assert row_scores(row("none", "neither"), METRICS, classes)["accuracy"] == 0
    texts = [("positive", "positive"), ("positive", "negative"), ("negative", "negative")]
    assert macro_f1(texts, classes[:2]) == pytest.approx(100 * 2 / 3)
