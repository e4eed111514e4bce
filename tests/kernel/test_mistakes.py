"""The usual mistakes of people who come from other frameworks: one line each, with the place and
what helps. On the installed plugins, before anything is loaded."""

import json
from pathlib import Path

import pytest

from tunewright import check
from tunewright.errors import TunewrightError

RECIPE = """\
model: tiny
family: qwen
template: chatml
adapter: lora
data:
  - path: good.jsonl
stage: sft
training: {max_steps: 2}
output: out
"""
ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}

#: name: (before, after, line of the recipe, field and problem, remedy)
MISTAKES = {
    "unknown key": (
        "max_steps",
        "learning_rat",
        8,
        "training.learning_rat: unknown key",
        "did you mean 'learning_rate'?",
    ),
    "key of another level": (
        "training: {max_steps: 2}",
        "learning_rate: 1e-4",
        8,
        "learning_rate: unknown key",
        "write training.learning_rate",
    ),
    "key of a peer": (
        "training: {max_steps: 2}",
        "cutoff_len: 512",
        8,
        "cutoff_len: unknown key",
        "write training.max_length",
    ),
    "flag of a peer": (
        "training: {max_steps: 2}",
        "do_train: true",
        8,
        "do_train: unknown key",
        "tunewright train trains",
    ),
    "stage": (
        "stage: sft",
        "stage: sftt",
        7,
        "stage: no installed plugin gives the stage 'sftt'",
        "did you mean 'sft'?",
    ),
    "no stage": (
        "stage: sft\n",
        "",
        0,
        "stage: is missing",
        "there is: classify, cpo, distill, dpo, ",
    ),
    "stage twice": (
        "stage: sft",
        "stage: sft\nstages: [sft]",
        7,
        "stage: has both stage and",
        "one is enough",
    ),
    "adapter": (
        "adapter: lora",
        "adapter: loraa",
        4,
        "no installed plugin gives the adapter",
        "did you mean 'lora'?",
    ),
    "adapter without name": (
        "adapter: lora",
        "adapter: {rank: 8}",
        4,
        "adapter.name: is missing",
        "freeze, full",
    ),
    "option of a peer": (
        "adapter: lora",
        "adapter: {name: lora, lora_rank: 8}",
        4,
        "adapter.lora_rank: unknown key",
        "did you mean 'rank'?",
    ),
    "no model": ("model: tiny\n", "", 0, "model: is missing", "a hub id"),
    "no output": ("output: out\n", "", 0, "output: is missing", "runs/first"),
    "no data": ("data:\n  - path: good.jsonl\n", "", 0, "data: is empty", "- path: my.jsonl"),
    "data by name": (
        "  - path: good.jsonl",
        "  - alpaca_en_demo",
        6,
        "data.0: found 'alpaca_en_demo', expected a mapping",
        "such as - path:",
    ),
    "data as text": (
        "data:\n  - path: good.jsonl",
        "data: alpaca_en_demo",
        5,
        "data: found 'alpaca_en_demo', expected a valid list",
        "- path: my.jsonl",
    ),
    "missing file": (
        "good.jsonl",
        "gone.jsonl",
        6,
        "data.0: there is no file",
        "did you mean 'good.jsonl'?",
    ),
    "format": (
        "path: good.jsonl",
        "{path: good.jsonl, format: sharegtp}",
        6,
        "data.0.format: no installed plugin gives the format",
        "did you mean 'sharegpt'?",
    ),
    "no rows": (
        "path: good.jsonl",
        "{path: good.jsonl, limit: 0}",
        6,
        "data.0.limit: found 0",
        "expected greater than 0",
    ),
    "validation share": (
        "stage: sft",
        "dataset: {name: chat, validation: 1.5}\nstage: sft",
        7,
        "dataset.validation: found 1.5",
        "expected less than 1 or a valid integer",
    ),
    "empty evaluation set": (
        "stage: sft",
        "eval_data: {held: []}\nstage: sft",
        7,
        "eval_data.held: is empty",
        "- path: my.jsonl",
    ),
    "template": (
        "chatml",
        "qwenn",
        3,
        "no installed plugin gives the template",
        "did you mean 'qwen'?",
    ),
    "number as text": (
        "max_steps: 2",
        "learning_rate: 1e-4x",
        8,
        "training.learning_rate: found '1e-4x'",
        "expected a valid number",
    ),
    "negative length": (
        "max_steps: 2",
        "max_length: -5",
        8,
        "training.max_length: found -5",
        "expected greater than 1",
    ),
    "precision": (
        "max_steps: 2",
        "precision: half",
        8,
        "training.precision: found 'half'",
        "expected 'auto', 'fp32', 'bf16', 'fp16' or 'pure_bf16'",
    ),
    "logger not in a list": (
        "stage: sft",
        "loggers: jsonl\nstage: sft",
        7,
        "loggers: found 'jsonl', expected a list",
        "write [jsonl]",
    ),
    "accelerator": (
        "stage: sft",
        "accelerators: [deepspeeed]\nstage: sft",
        7,
        "no installed plugin gives the accelerator",
        "did you mean 'deepspeed'?",
    ),
    "optimizer of a peer": (
        "stage: sft",
        "optimizer: adamw_torch\nstage: sft",
        7,
        "no installed plugin gives the optimizer",
        "did you mean 'adamw'?",
    ),
    "schedule": (
        "max_steps: 2",
        "lr_scheduler_type: cosin",
        8,
        "training.lr_scheduler_type: no installed plugin gives the scheduler",
        "did you mean 'cosine'?",
    ),
    "bracket": ("stage: sft", "stage: [sft", 8, "is not safe, valid YAML", "brackets"),
    "indentation": (
        "stage: sft",
        "stage: sft\n bad: x",
        8,
        "is not safe, valid YAML",
        "indentation",
    ),
    "tab": ("stage: sft", "\tstage: sft", 7, "is not safe, valid YAML", "indent with spaces"),
    "tag": ("stage: sft", "stage: !mine sft", 7, "is not safe, valid YAML", "leave the tag out"),
    "key twice": (
        "stage: sft",
        "stage: sft\nmodel: x",
        8,
        "model stands there twice",
        "in line 1: leave one",
    ),
    "processes": (
        "stage: sft",
        "launch: {processes: 0}\nstage: sft",
        7,
        "launch.processes: found 0",
        "expected greater than 0",
    ),
}


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("good.jsonl").write_text(json.dumps(ROW) + "\n")

    def _lines(text: str) -> list[str]:
        Path("r.yaml").write_text(text)
        try:
            check.resolve("r.yaml", look=True)
        except TunewrightError as error:
            return error.lines
        return []

    return _lines


def test_the_recipe_itself_is_good_as_yaml_and_as_json(lines):
    assert lines(RECIPE) == []
    assert (
        lines(
            json.dumps(
                {
                    "model": "tiny",
                    "family": "qwen",
                    "template": "chatml",
                    "data": [{"path": "good.jsonl"}],
                    "stage": "sft",
                    "output": "out",
                }
            )
        )
        == []
    )


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_its_place_and_a_remedy(lines, name):
    before, after, number, problem, remedy = MISTAKES[name]
    assert before in RECIPE
    found = lines(RECIPE.replace(before, after))
    assert len(found) == 1
    assert found[0].startswith(f"r.yaml:{number}: " if number else "r.yaml: ")
    assert problem in found[0] and remedy in found[0]
    assert len(found[0]) < 400


@pytest.mark.parametrize("path", ["nothing.yaml", ".", "/dev/null/x", "a\x00b", "x" * 5000])
def test_a_recipe_that_is_no_file(path):
    with pytest.raises(TunewrightError) as error:
        check.resolve(path)
    assert len(error.value.lines) == 1
