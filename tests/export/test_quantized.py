"""Exports of quantized checkpoints whose libraries are in the main environment."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FineGrainedFP8Config

from export.exporting import distance, export, report
from tunewright import RecipeError, RunError
from tunewright_hf.models import packing


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return found["quantization_config"]


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes(lora: Path, merged: Path, tmp_path: Path, bits: int) -> None:
    to = tmp_path / "to"
    done = export(lora, "--to", "bitsandbytes", "--output", to, f"bits={bits}", "tolerance=1")
    assert "verified" in done.output
    assert config(to)[f"load_in_{bits}bit"] is True
    held = load_file(to / "model.safetensors")
    kinds = {each.dtype for name, each in held.items() if name.endswith("q_proj.weight")}
    assert kinds == {{4: torch.uint8, 8: torch.int8}[bits]}
    plain = AutoModelForCausalLM.from_pretrained(to, dtype="auto").dequantize()
    assert 1e-3 < distance(plain, merged) < {4: 0.12, 8: 0.02}[bits]
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "README.md"):
        assert (to / name).is_file(), name
    assert not (to / ".plain").exists()


def test_tolerance_goes_by_bits(full: Path, tmp_path: Path) -> None:
    export(full, "--to", "bitsandbytes", "--output", tmp_path / "to")
    assert report(tmp_path / "to")["tolerance"] == 0.5
    assert 1e-3 < report(tmp_path / "to")["largest_difference"] < 0.1


def test_fp8(lora: Path, merged: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    done = export(lora, "--to", "fp8", "--output", to, "tolerance=1")
    assert "verified" in done.output
    held = load_file(to / "model.safetensors")
    assert held["model.layers.0.mlp.up_proj.weight"].dtype == torch.float8_e4m3fn
    assert "model.layers.0.mlp.up_proj.weight_scale_inv" in held
    read = AutoModelForCausalLM.from_pretrained(
        to, quantization_config=FineGrainedFP8Config(dequantize=True), dtype=torch.float32
    )
    assert 1e-3 < distance(read, merged) < 0.04


def test_a_stricter_tolerance_is_held(full: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"more than 1e-06"):
        export(full, "--to", "fp8", "--output", tmp_path / "to", "tolerance=0.000001")
    assert not list(tmp_path.iterdir())


def test_files_are_quantized_one_by_one(full: Path, tmp_path: Path) -> None:
    plain, to = tmp_path / "plain", tmp_path / "to"
    export(full, "--to", "safetensors", "--output", plain, "shard_size=100KB")
    to.mkdir()
    packing.quantize_checkpoint(plain, to, lambda weight: {"weight": weight * 0}, {"ignore": None})
    index = json.loads((to / "model.safetensors.index.json").read_text("utf-8"))["weight_map"]
    files = sorted(to.glob("*.safetensors"))
    assert len(files) > 1
    assert {name: file.name for file in files for name in load_file(file)} == index
    for file in files:
        for name, each in load_file(file).items():
            assert each.any() != name.endswith("proj.weight"), name
    assert config(to) == {"ignore": ["lm_head"]}
    files[-1].unlink()
    with pytest.raises(RunError, match="has no weight of"):
        packing.quantize_checkpoint(to, to, lambda weight: {"weight": weight}, {})


@pytest.mark.parametrize("name", ["gptq", "awq", "torchao", "compressed_tensors"])
def test_a_missing_library_is_named(full: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="which is not installed here") as caught:
        export(full, "--to", name, "--output", tmp_path / "to")
    assert "tunewright env create quantizers" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_experts_are_refused(tmp_path: Path) -> None:
    held = {"model.layers.0.mlp.experts.gate_up_proj": torch.zeros(2, 4, 4)}
    save_file(held, tmp_path / "model.safetensors")
    with pytest.raises(RunError, match=r"has experts, .* such as model.layers.0.mlp.experts"):
        packing.quantize_checkpoint(tmp_path, tmp_path, lambda weight: {"weight": weight}, {})
