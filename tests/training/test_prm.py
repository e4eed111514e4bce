"""Process reward models: loss and metrics by hand, splits of a step, resuming, and a result that
transformers reads."""

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from answers_setup import run_stage
from peft import LoraConfig, get_peft_model
from stage_checks import check_resumed, check_split
from training_setup import SIZE, loaded, logs_of, tokenizer
from transformers import AutoModelForTokenClassification, AutoTokenizer, LlamaConfig

from tunewright.check import resolve
from tunewright.run import open_run, train
from tunewright.types import LoadedModel
from tunewright_prm import Prm
from tunewright_prm.training import last_alone, step_losses, step_sums


def prm(**options: Any) -> Prm:
    return Prm(Prm.Options(**options), "prm")


def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, num_labels=2, classifier_dropout=0.0)
    return AutoModelForTokenClassification.from_config(config, attn_implementation="eager")


def with_lora() -> LoadedModel:
    """The head is no target of LoRA, as it is in runs: PEFT trains a copy of it."""
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules="all-linear", exclude_modules=["score"], task_type="TOKEN_CLS"
    )
    return LoadedModel(get_peft_model(model(), config), tokenizer(), saves="adapter")


def rows(number: int = 24, seed: int = 0) -> datasets.Dataset:
    """One to three steps; a right one ends with token 5 before its line break (4), a wrong one with
    6."""
    made = torch.Generator().manual_seed(seed)
    table = []
    for row in range(number):
        ids = torch.randint(20, SIZE["vocab_size"], (1 + row % 4,), generator=made).tolist()
        labels = [-100] * len(ids)
        for step in range(1 + row % 3):
            right = (row + step) % 2
            ids += [30 + step, 5 if right else 6, 4]
            labels += [-100, -100, right]
        table.append({"input_ids": ids, "labels": labels})
    return datasets.Dataset.from_list(table)


# ---- the loss ------------------------------------------------------------------------------------


def test_losses_and_metrics_by_hand() -> None:
    outputs = torch.zeros(2, 4, 2)
    outputs[0, 1] = torch.tensor([2.0, 0.5])  # judged wrong, is right
    outputs[0, 3] = torch.tensor([-1.0, 1.0])  # judged right, is right
    outputs[1, 2] = torch.tensor([0.3, 0.1])  # judged wrong, is wrong
    outputs[1, 0] = torch.tensor([9.0, -9.0])  # does not count
    labels = torch.tensor([[-100, 1, -100, 1], [-100, -100, 0, -100]])

    def loss(own: float, other: float) -> float:
        return -math.log(math.exp(own) / (math.exp(own) + math.exp(other)))

    expected = [loss(0.5, 2.0), loss(1.0, -1.0), loss(0.3, 0.1)]
    assert step_losses(outputs, labels).tolist() == pytest.approx(expected)
    assert step_sums(outputs, labels).tolist() == pytest.approx([sum(expected), 2, 3, 1, 2])


def test_the_loss_is_that_of_transformers(tmp_path: Path) -> None:
    """With its own labels, at the same places."""
    batch = rows(3)
    plain = model()
    found = []
    for row in batch:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        out = plain(input_ids=ids, labels=labels)
        found += [float(out.loss.detach())] * sum(label >= 0 for label in row["labels"])
    run, _ = run_stage(
        tmp_path,
        loaded(model()),
        prm(),
        batch,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=1,
        batching="random",
        max_steps=1,
        logging_steps=1,
    )
    assert logs_of(run)[0]["loss"] == pytest.approx(sum(found) / len(found), rel=1e-4)


def test_the_last_step_alone() -> None:
    assert last_alone([-100, 1, -100, 0, -100]) == [-100, -100, -100, 0, -100]


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "lora"])
def test_it_learns(tmp_path: Path, how: str) -> None:
    made = with_lora() if how == "lora" else loaded(model())
    evals = {"it": rows(9, seed=3)}
    run, result = run_stage(tmp_path, made, prm(), rows(), evals=evals, max_steps=40)
    logged = logs_of(run)
    assert logged[-1]["loss"] < 0.3 * logged[0]["loss"]
    assert result.metrics["it_accuracy"] == result.metrics["it_answer_accuracy"] == 1
    assert set(result.metrics) >= {f"it_{name}" for name in Prm.eval_metrics}


def test_only_the_last_step_is_trained(tmp_path: Path) -> None:
    """The loss is that of rows whose other steps have no label."""
    alone = rows().map(lambda row: {"labels": last_alone(row["labels"])})
    settings: dict[str, Any] = {"max_steps": 3, "logging_steps": 1}
    one, _ = run_stage(
        tmp_path / "one", loaded(model()), prm(only_last_step=True), rows(), **settings
    )
    other, _ = run_stage(tmp_path / "other", loaded(model()), prm(), alone, **settings)
    assert logs_of(one) == logs_of(other)


def test_a_step_does_not_depend_on_how_it_is_split(tmp_path: Path) -> None:
    check_split(tmp_path, lambda: loaded(model()), prm(), rows(), rows(5, seed=4))


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    check_resumed(tmp_path, with_lora, prm(), rows())


# ---- from a recipe to transformers ---------------------------------------------------------------


def test_transformers_reads_the_result(tmp_path: Path) -> None:
    records = [
        {"prompt": f"{n} + 1?", "completions": ["I add.", end], "labels": [True, end == "Yes."]}
        for n in range(8)
        for end in ("Yes.", "Oh no!")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    recipe = resolve(
        {
            "model": "tiny",
            "family": {"name": "qwen", "device": "cpu", "tiny_hidden_size": 32},
            "data": [{"path": str(tmp_path / "rows.jsonl")}],
            "stage": {"name": "prm"},
            "training": {
                "max_steps": 40,
                "learning_rate": 1e-2,
                "per_device_train_batch_size": 8,
                "max_length": 128,
                "precision": "fp32",
            },
            "output": str(tmp_path / "run"),
            "loggers": [],
        }
    )
    result = train(recipe)
    theirs: Any = AutoModelForTokenClassification.from_pretrained(result.path)
    words: Any = AutoTokenizer.from_pretrained(result.path)
    assert theirs.config.id2label == {0: "wrong", 1: "right"}
    asked = words.apply_chat_template(
        [{"role": "user", "content": "3 + 1?"}], add_generation_prompt=True, return_dict=False
    )
    end = words("\n", add_special_tokens=False)["input_ids"]
    judged = []
    for last in ("Yes.", "Oh no!"):
        ids, places = [*asked], []
        for step in ("I add.", last):
            ids += words(step, add_special_tokens=False)["input_ids"] + end
            places.append(len(ids) - 1)
        with torch.no_grad():
            found = theirs(input_ids=torch.tensor([ids])).logits[0, places].argmax(-1)
        judged.append([theirs.config.id2label[int(each)] for each in found])
    assert judged == [["right", "right"], ["right", "wrong"]]
    assert open_run(tmp_path / "run").policy_head == "steps"
