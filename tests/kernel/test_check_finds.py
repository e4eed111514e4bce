"""What `recipe check` finds on the installed plugins that would fail only after a model was loaded:
metrics of evaluations, and what rewards need."""

import json
from pathlib import Path

import pytest
import yaml

from tunewright import check
from tunewright.errors import RecipeError

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
BEST = {"load_best_model_at_end": True}


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """problems(left out, changes): the lines for a recipe with other sections."""
    monkeypatch.chdir(tmp_path)
    for name, row in (("chat", CHAT), ("pairs", PAIR), ("prompts", {"prompt": "q", "gold": "7"})):
        Path(f"{name}.jsonl").write_text(json.dumps(row) + "\n")

    def found(*left_out: str, look: bool = True, **changes: object) -> list[str]:
        recipe = {
            "model": "tiny",
            "family": "qwen",
            "data": [{"path": "chat.jsonl"}],
            "eval_data": {"held": [{"path": "chat.jsonl"}]},
            "stage": "sft",
            "output": "out",
        }
        written = {k: v for k, v in (recipe | changes).items() if k not in left_out}
        Path("r.yaml").write_text(yaml.safe_dump(written))
        try:
            check.resolve("r.yaml", look=look)
        except RecipeError as error:
            return error.lines
        return []

    return found


PAIRS = {"data": [{"path": "pairs.jsonl"}], "eval_data": {"held": [{"path": "pairs.jsonl"}]}}
GENERATES = {"name": "sft", "predict_with_generate": True}


@pytest.mark.parametrize(
    ("metric", "changes"),
    [
        ("eval_loss", {}),
        ("held_loss", {}),
        ("loss", {}),
        ("rouge-l", {"stage": GENERATES}),
        ("eval_rewards/margins", {"stage": "dpo", **PAIRS}),
        ("held_kl", {"stage": "kto"}),
        ("reward", {"stage": {"name": "grpo", "rewards": ["valid_json"]}}),
        ("validation_loss", {"eval_data": {}, "dataset": {"name": "chat", "validation": 1}}),
    ],
)
def test_metrics_that_there_will_be(problems, metric, changes):
    assert problems(training=BEST | {"metric_for_best_model": metric}, **changes) == []


@pytest.mark.parametrize(
    ("training", "changes", "said"),
    [
        (
            BEST | {"metric_for_best_model": "eval_acuracy"},
            {},
            "training.metric_for_best_model: no evaluation of sft gives 'eval_acuracy' (there is: "
            "held_loss)",
        ),
        (
            BEST | {"metric_for_best_model": "held_rouge-l"},
            {},
            "no evaluation of sft gives 'held_rouge-l'",
        ),
        (
            {"early_stopping_patience": 2, "metric_for_best_model": "rewards/acuracies"},
            {"stage": "dpo", **PAIRS},
            "no evaluation of dpo gives 'rewards/acuracies' (did you mean 'held_rewards/accuracies",
        ),
        (
            BEST | {"metric_for_best_model": "eval_loss"},
            {"eval_data": {"a": PAIRS["data"], "b": PAIRS["data"]}},
            "'eval_loss' is of no evaluation set (it begins with the name of one: a_loss, b_loss)",
        ),
        (BEST, {"eval_data": {}}, "training.load_best_model_at_end: there is no evaluation set"),
        (
            {"early_stopping_patience": 1},
            {"eval_data": {}},
            "training.early_stopping_patience: there is no evaluation set to judge by (give eval",
        ),
    ],
)
def test_metrics_that_there_will_not_be(problems, training, changes, said):
    (line,) = problems(training=training, **changes)
    assert line.startswith("r.yaml:") and said in line


def test_a_stage_of_a_chain_is_named(problems):
    stages = [{"name": "sft"}, {"name": "sft", "training": BEST, "eval_data": {}}]
    (line,) = problems("stage", stages=stages)
    assert "stages.1.training.load_best_model_at_end: there is no evaluation set" in line


# ---- rewards -------------------------------------------------------------------------------------


def rewarded(*rewards: object, **source: object) -> dict[str, object]:
    return {
        "stage": {"name": "grpo", "rewards": list(rewards)},
        "data": [{"path": "prompts.jsonl", **source}],
        "eval_data": {},
    }


@pytest.mark.parametrize(
    "changes",
    [
        rewarded({"name": "exact_match", "column": "gold"}),
        rewarded("exact_match", columns={"answer": "gold"}),
        rewarded("valid_json", {"name": "format", "pattern": "x"}),
        rewarded("exact_match", hub="hf", path="nobody/prompts"),  # is not read
        rewarded("exact_match", path="https://host/prompts.jsonl"),
        rewarded("exact_match") | {"dataset": {"name": "chat", "prepared": "prep"}},
    ],
)
def test_rewards_that_have_what_they_need(problems, changes):
    assert problems(**changes) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            rewarded("exact_match"),
            "stage.rewards.0: reward exact_match needs the column 'answer', and the rows have gold,"
            " prompt (rename one in the source, such as `columns: {answer: gold}`",
        ),
        (rewarded("valid_json", "format"), "stage.rewards.1: reward format: pattern: is missing"),
        (
            rewarded({"name": "length", "target": 1, "colour": 2}),
            "stage.rewards.0: reward length: colour: unknown key",
        ),
    ],
)
def test_rewards_that_lack_something(problems, changes, said):
    (line,) = problems(**changes)
    assert line.startswith("r.yaml:") and said in line


def test_data_is_looked_at_only_where_that_is_asked_for(problems):
    """A run is opened, and workers start, from a recipe whose data may be gone."""
    assert problems(look=False, **rewarded("exact_match")) == []


def test_columns_of_any_of_the_first_records_count(problems):
    rows = [{"prompt": "q"}, {"prompt": "q", "answer": "7"}]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert problems(**rewarded("exact_match")) == []
