"""Real configurations of other programs, from checkouts that TUNEWRIGHT_EXAMPLES names: a folder
with LLaMA-Factory, axolotl and ms-swift in it. None of them is here."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples_page import PAGE, page, verdicts

import tunewright
from tunewright import check
from tunewright.errors import RecipeError
from tunewright.run import smoke
from tunewright_import.files import configurations, translated
from tunewright_import.translation import Refused
from tunewright_import.writing import as_yaml

ROOT = Path(os.environ.get("TUNEWRIGHT_EXAMPLES", ""))
#: program → its checkout, and the least number of its examples that become recipes or commands
PROGRAMS = {
    "llamafactory": ("LLaMA-Factory", 60),
    "axolotl": ("axolotl", 150),
    "swift": ("ms-swift", 100),
}


def checkout(program: str) -> Path:
    folder = ROOT / PROGRAMS[program][0]
    if not os.environ.get("TUNEWRIGHT_EXAMPLES") or not folder.is_dir():
        pytest.skip(f"no checkout of {program}: set TUNEWRIGHT_EXAMPLES")
    return folder.resolve()


@pytest.mark.parametrize("program", PROGRAMS)
def test_translated_or_refused(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkout(program)
    monkeypatch.chdir(folder)
    done, malformed, unknown = 0, [], []
    for file in configurations(program, folder / "examples"):
        try:
            result = translated(program, file, tmp_path)
        except Refused:
            continue
        done += 1
        if result.command:
            continue
        unknown += [(file, note.key) for note in result.notes if "no known key" in note.text]
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(as_yaml(result, file.name), encoding="utf-8")
        try:
            check.resolve(recipe)
        except RecipeError as error:
            malformed += [(file, error)] if "unknown key" in str(error) else []
    assert not malformed  # plugins may object to each other; the form is right
    assert program == "axolotl" or not unknown  # theirs hold keys that Axolotl has given up
    assert done >= PROGRAMS[program][1]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(checkout("llamafactory"))


#: examples for text, without further libraries or processes, which train on a tiny model
TRAINED = (
    *("train_lora/qwen3_lora_sft", "train_lora/qwen3_lora_dpo", "train_lora/qwen3_lora_kto"),
    *("train_lora/qwen3_lora_pretrain", "train_lora/qwen3_lora_reward"),
    *("train_qlora/qwen3_lora_sft_otfq", "extras/pissa/llama3_lora_sft"),
    *("extras/loraplus/llama3_lora_sft", "extras/adam_mini/qwen2_full_sft"),
    *("extras/dft/qwen2_full_sft", "extras/muon/qwen2_full_sft", "extras/galore/llama3_full_sft"),
    *("extras/apollo/llama3_full_sft", "extras/badam/llama3_full_sft"),
    "extras/oft/llama3_oft_sft",
)
#: matrices of a tiny model are smaller than the examples' ranks
_SMALLER = {
    "extras/galore/llama3_full_sft": ["optimizer.rank=4"],
    "extras/apollo/llama3_full_sft": ["optimizer.rank=4"],
}
_QUICK = ("train_lora/qwen3_lora_sft", "train_lora/qwen3_lora_dpo")
#: further losses and methods, as changes of an example
CHANGED: dict[str, dict[str, Any]] = {
    "train_lora/qwen3_lora_dpo+orpo": {"pref_loss": "orpo"},
    "train_lora/qwen3_lora_dpo+simpo": {"pref_loss": "simpo"},
    "train_lora/qwen3_lora_dpo+full": {"finetuning_type": "full"},
    "train_lora/qwen3_lora_kto+freeze": {"finetuning_type": "freeze"},
    "train_lora/qwen3_lora_reward+full": {"finetuning_type": "full"},
    "train_lora/qwen3_lora_pretrain+freeze": {"finetuning_type": "freeze"},
    "train_lora/qwen3_lora_sft+freeze": {"finetuning_type": "freeze"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in _QUICK else pytest.mark.long)
        for name in (*TRAINED, *CHANGED)
    ],
)
def test_trains_on_a_tiny_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkout("llamafactory")
    monkeypatch.chdir(folder)
    source = folder / "examples" / f"{name.partition('+')[0]}.yaml"
    own = yaml.safe_load(source.read_text("utf-8"))
    file = tmp_path / "config.yaml"
    data = {"dataset_dir": str(folder / "data"), "max_samples": 8, "preprocessing_num_workers": 1}
    file.write_text(yaml.safe_dump({**own, **CHANGED.get(name, {}), **data}))
    recipe = as_yaml(translated("llamafactory", file, tmp_path), file.name)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    here = ["training.precision=fp32", "training.dataloader_workers=0"]  # whatever the machine has
    changes = [f"output={tmp_path / 'run'}", *here, *_SMALLER.get(name, ())]
    resolved = check.resolve(tmp_path / "recipe.yaml", changes)
    result = tunewright.train(smoke(resolved, 2))
    assert result.steps == 2
    assert re.fullmatch(r"-?[\d.]+(e-?\d+)?", str(result.metrics["loss"]))
    assert json.loads((tmp_path / "run-smoke/run.json").read_text("utf-8"))["status"] == "completed"


def test_the_examples_that_train_are_all_for_text() -> None:
    """Those that are recipes, for text, without GPU, processes and further libraries."""
    plain = {
        name.removesuffix(".yaml")
        for name, verdict in verdicts(checkout("llamafactory"))
        if verdict == "recipe"
    }
    assert set(TRAINED) <= plain
