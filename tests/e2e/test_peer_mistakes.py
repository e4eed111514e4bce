"""The mistakes that were tried on LLaMA-Factory 0.9 (and what showed a stack of calls, or trained
nevertheless, there), as its users would make them here: one line with the place and a remedy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Command = Callable[..., tuple[int, str, str]]

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
TURNS = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
ROW = {"instruction": "q", "output": "a"}
PICTURE = ROW | {"instruction": "<image> what?", "images": ["a.png"]}
INFO = {"file_name": "a.jsonl"}
RECIPE: dict[str, Any] = {
    "model": "tiny",
    "family": {"name": "qwen", "tiny_hidden_size": 16, "tiny_layers": 1},
    "template": "chatml",
    "adapter": "lora",
    "data": [{"path": "a.jsonl"}],
    "stage": "sft",
    "training": {"max_steps": 1},
    "loggers": [],
    "output": "out",
}
TRAIN = ("train", "r.yaml")


def training(**fields: Any) -> dict[str, Any]:
    return {"training": {"max_steps": 1, **fields}}


def source(**fields: Any) -> dict[str, Any]:
    return {"data": [{"path": "a.jsonl", **fields}]}


def informed(info: Any, **fields: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """A source of a dataset_info.json, and that file."""
    entry = {"dataset_info": ".", "name": "it", **fields}
    return {"data": [entry]}, {"dataset_info.json": json.dumps(info)}


#: name: changes of the recipe (None: without that section), files, place, remedy
MISTAKES: dict[str, tuple[dict[str, Any], dict[str, str], str, str]] = {
    "bad_key": (training(learning_rat=1), {}, "r.yaml:", "did you mean 'learning_rate'?"),
    "bad_stage": ({"stage": "sftt"}, {}, "r.yaml:", "did you mean 'sft'?"),
    "bad_finetuning": ({"adapter": "loraa"}, {}, "r.yaml:", "did you mean 'lora'?"),
    "missing_model": (
        {"model": "./gone", "family": "qwen"},
        {},
        "gone: ",
        "`model` is a folder, a hub id such as owner/name, or tiny",
    ),
    "hub_model_offline": (
        {"model": "nobody/gone", "family": "qwen"},
        {},
        "nobody/gone: ",
        "unset HF_HUB_OFFLINE",
    ),
    "no_model": ({"model": None}, {}, "r.yaml: model", "a hub id, a local folder, or tiny"),
    "unknown_dataset": (*informed({"other": INFO}), "r.yaml:", "there is: other"),
    "missing_file": (source(path="b.jsonl"), {}, "r.yaml:", "did you mean 'a.jsonl'?"),
    "bad_json_line": ({}, {"a.jsonl": f"{json.dumps(ROW)}\n{{broken}}\n"}, "a.jsonl:2", "skip"),
    "truncated_json": (
        {},
        {"a.jsonl": f'{json.dumps(ROW)}\n{{"instruction": "q", "out'},
        "a.jsonl:2",
        "cut off: get or write it again",
    ),
    "missing_columns": ({}, {"a.jsonl": '{"foo": 1}\n'}, "a.jsonl:1", "name one with `format:`"),
    "empty_dataset": ({}, {"a.jsonl": ""}, "data.0.path", "write records"),
    "all_null_output": (
        {},
        {"a.jsonl": '{"instruction": "q", "output": null}\n'},
        "a.jsonl:1",
        "skip",
    ),
    "mixed_types": (
        {},
        {"a.jsonl": f'{json.dumps(ROW)}\n{{"instruction": "q", "output": 5}}\n'},
        "a.jsonl:2",
        "output: found 5, expected text",
    ),
    "null_content": (
        {},
        {"a.jsonl": json.dumps(TURNS).replace('"a"', "null")},
        "a.jsonl:1",
        "found null, expected text",
    ),
    "bad_formatting": (source(format="sharegtp"), {}, "r.yaml:", "did you mean 'sharegpt'?"),
    "info_key_typo": (
        *informed({"it": INFO | {"colums": {"prompt": "q"}}}),
        "dataset_info.json: it.colums",
        "did you mean 'columns'?",
    ),
    "wrong_column": (
        *informed({"it": INFO | {"columns": {"prompt": "instruct", "response": "output"}}}),
        "a.jsonl:1",
        "did you mean 'instruction'?",
    ),
    "ranking_mismatch": (
        *informed({"it": INFO | {"ranking": True, "columns": {"prompt": "instruction"}}}),
        "data.0.format",
        "stages that train on preference or ranked: cpo, dpo",
    ),
    "dpo_on_sft_data": (
        {"stage": "dpo"},
        {},
        "a.jsonl:1",
        "stages that train on messages: distill, sft",
    ),
    "template_typo": ({"template": "qwenn"}, {}, "r.yaml:", "did you mean 'qwen'?"),
    "removed_template": ({"template": "llama2_zh"}, {}, "r.yaml:", "did you mean 'llama2'?"),
    "image_missing_textmodel": (
        {},
        {"a.jsonl": json.dumps(PICTURE), "a.png": "x"},
        "a.jsonl:1",
        "take images, videos and audio out of the data",
    ),
    "image_template_missing": (
        {"template": "qwen2_vl"},
        {"a.jsonl": json.dumps(PICTURE), "a.png": "x"},
        "r.yaml:",
        "did you mean 'qwen3_6'?",
    ),
    "lora_target_typo": (
        {"adapter": {"name": "lora", "targets": ["q_prj"]}},
        {},
        "adapter.targets",
        "did you mean 'q_proj'?",
    ),
    "lr_string": (training(learning_rate="abc"), {}, "r.yaml:", "expected a valid number"),
    "neg_cutoff": (training(max_length=-5), {}, "r.yaml:", "expected greater than 1"),
    "cutoff_4": (
        training(max_length=4),
        {},
        "data: ",
        "raise training.max_length, or cut such rows with dataset.truncate",
    ),
    "no_output_dir": ({"output": None}, {}, "r.yaml: output", "such as runs/first"),
    "no_do_train": ({"do_train": False}, {}, "r.yaml:", "tunewright train trains"),
    "no_dataset": ({"data": None}, {}, "r.yaml: data", "such as - path: my.jsonl"),
    "quant_full": (
        {"adapter": "full", "quantizer": "bitsandbytes"},
        {},
        "r.yaml:",
        "train an adapter, such as lora",
    ),
    "max_samples_0": (source(limit=0), {}, "r.yaml:", "expected greater than 0"),
    "bad_dataset_dir": (
        {"data": [{"dataset_info": "gone", "name": "it"}]},
        {},
        "r.yaml:",
        "give the folder that holds it",
    ),
    "val_size_1.5": (
        {"dataset": {"name": "chat", "validation": 1.5}},
        {},
        "r.yaml:",
        "expected less than 1 or a valid integer",
    ),
    "use_cpu_fp16": (training(precision="fp16"), {}, "training.precision", "set bf16 or fp32"),
    "deepspeed_missing": (
        {"accelerators": ["deepspeeed"]},
        {},
        "r.yaml:",
        "did you mean 'deepspeed'?",
    ),
    "yaml_syntax": ({}, {"r.yaml": "model: tiny\nstage: [sft\n"}, "r.yaml:3", "brackets"),
    "key_twice": ({}, {"r.yaml": "model: tiny\nmodel: x\n"}, "r.yaml:2", "leave one of them out"),
}
#: name: arguments, what is said of them, remedy
COMMANDS = {
    "config_missing": (("train", "gone.yaml"), "gone.yaml: ", "tunewright recipe new writes one"),
    "unknown_command": (("trian", "r.yaml"), "'trian'", "did you mean 'train'?"),
    "no_args_train": (("train",), "'RECIPE'", "see tunewright train --help"),
    "cli_eval": (("eval", "r.yaml"), "'eval'", "tunewright evaluate measures a trained model"),
    "export_no_dir": (("export", "r.yaml"), "'--to'", "tunewright export --help"),
}


NO_MISTAKES = ("wrong_roles", "json_config", "dashdash_help", "export_lora_ok")


def test_all_of_them_are_here() -> None:
    """The 47 that were tried there, and a key that is written twice."""
    assert len({*MISTAKES, *COMMANDS, *NO_MISTAKES}) == 48


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("a.jsonl").write_text(f"{json.dumps(ROW)}\n" * 2)


def written(changes: dict[str, Any]) -> str:
    return yaml.safe_dump({k: v for k, v in (RECIPE | changes).items() if v is not None})


def one_line(found: tuple[int, str, str]) -> str:
    code, out, error = found
    said = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and code in (1, 2), error
    assert "Traceback" not in out + error and "this is a defect" not in error
    return said[0].removeprefix("error: ")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_a_recipe_or_its_data(tunewright: Command, name: str) -> None:
    changes, files, place, remedy = MISTAKES[name]
    for file, text in ({"r.yaml": written(changes)} | files).items():
        Path(file).write_text(text)
    said = one_line(tunewright(*TRAIN))
    assert place in said and remedy in said
    assert not Path("out/model").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_of_a_command(tunewright: Command, name: str) -> None:
    Path("r.yaml").write_text(written({}))
    arguments, place, remedy = COMMANDS[name]
    said = one_line(tunewright(*arguments))
    assert place in said and remedy in said


def test_what_is_no_mistake_here(tunewright: Command) -> None:
    """Roles of OpenAI in sharegpt, a recipe as JSON, --help, and a model that needs no export."""
    roles = json.dumps(TURNS).replace("human", "user").replace("gpt", "assistant")
    Path("b.jsonl").write_text(f"{roles}\n{json.dumps(TURNS)}\n")
    Path("r.json").write_text(json.dumps(RECIPE | source(path="b.jsonl")))
    code, _, error = tunewright("train", "r.json")
    assert code == 0 and not error
    assert Path("out/model/adapter_model.safetensors").is_file()
    assert tunewright("--help")[0] == 0
