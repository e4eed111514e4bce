"""Exports: what they hold, how they are compared with the run, and what a failure leaves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from export.exporting import export, loud, report, says
from tunewright import RecipeError, RunError
from tunewright_hf.models import export as saving


def test_adapter_is_merged(full: Path, lora: Path, tmp_path: Path) -> None:
    to = tmp_path / "merged"
    done = export(lora, "--to", "safetensors", "--output", to, "shard_size=100KB")
    assert "verified: logits differ by" in done.output
    found = report(to)
    assert found["verified"]
    assert found["largest_difference"] <= 1e-4
    assert found["same_most_likely_token"] == 1
    assert len([name for name in found["files"] if name.endswith(".safetensors")]) > 1
    plain = AutoModelForCausalLM.from_pretrained(to)
    base = AutoModelForCausalLM.from_pretrained(full / "model")
    before = says(base, to)
    both = says(PeftModel.from_pretrained(base, lora / "model"), to)
    assert (before - both).abs().max() > 0.1  # the adapter is loud
    assert torch.allclose(says(plain, to), both, atol=1e-4)
    assert (to / "README.md").is_file()
    assert "rows.jsonl" not in (to / "export.json").read_text()


def test_adapter_alone(full: Path, lora: Path, tmp_path: Path) -> None:
    to = tmp_path / "adapter"
    done = export(lora, "--to", "adapter", "--output", to, "base=org/base")
    assert "verified" in done.output
    config = json.loads((to / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base"
    assert not (to / "model.safetensors").exists()
    done = export(lora, "--to", "adapter", "--output", tmp_path / "local")
    assert "a folder of this machine" in done.output
    with pytest.raises(RecipeError, match="has no adapter"):
        export(full, "--to", "adapter", "--output", tmp_path / "none")


def test_several_adapters(lora: Path, tmp_path: Path) -> None:
    other = loud(Path(shutil.copytree(lora / "model", tmp_path / "other")), seed=1)
    parts = ["--adapter", f"{lora}=0.5", "--adapter", f"{other}=0.25"]
    export(lora, "--to", "safetensors", "--output", tmp_path / "both", *parts)
    assert report(tmp_path / "both")["verified"]
    weights = [each["weight"] for each in report(tmp_path / "both")["adapters"]]
    assert weights == [0.5, 0.25]
    export(lora, "--to", "safetensors", "--output", tmp_path / "one")
    one, both = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("one", "both"))
    assert (says(one, tmp_path / "one") - says(both, tmp_path / "both")).abs().max() > 0.1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes(full: Path, tmp_path: Path, dtype: str) -> None:
    to = tmp_path / dtype
    export(full, "--to", "safetensors", "--output", to, f"dtype={dtype}")
    held = load_file(to / "model.safetensors").values()
    assert {str(each.dtype) for each in held} == {f"torch.{dtype}"}
    assert 0 < report(to)["largest_difference"] < report(to)["tolerance"]


def test_ollama(full: Path, tmp_path: Path) -> None:
    to = tmp_path / "ollama"
    export(full, "--to", "ollama", "--output", to, "context_length=4096")
    text = (to / "Modelfile").read_text()
    assert text.startswith("FROM .\n")
    assert text.count("<|im_start|>user\n{{ .Content }}") == 1
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER num_ctx 4096" in text


def test_what_differs_does_not_appear(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = saving.merged

    def wrong(run: Any, request: Any) -> Any:
        loaded = own(run, request)
        with torch.no_grad():
            next(loaded.model.parameters()).mul_(1.5)
        return loaded

    monkeypatch.setattr(saving, "merged", wrong)
    with pytest.raises(RunError, match="logits differ from the run's by"):
        export(full, "--to", "safetensors", "--output", tmp_path / "wrong")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_result", no_room)
    with pytest.raises(RunError, match="No space left on device"):
        export(full, "--to", "safetensors", "--output", tmp_path / "full")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "merged"], "no installed plugin gives the exporter 'merged'"),
        (["--to", "safetensors", "dtype=int3"], "dtype"),
        (["--to", "safetensors", "dtype"], "expected NAME=VALUE"),
        (["--to", "safetensors", "--adapter", "gone=1"], "holds no adapter_config.json"),
        (["--to", "safetensors", "--adapter", "gone=much"], "expected FOLDER or FOLDER=0.5"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes(full: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        export(full, "--output", tmp_path / "to", *arguments)


def test_no_folder_is_replaced(full: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="exists already"):
        export(full, "--to", "safetensors", "--output", tmp_path)
