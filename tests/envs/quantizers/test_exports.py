"""Exports of quantized checkpoints with the libraries of this environment."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from export.exporting import distance, export, loud, report, train
from tunewright import RecipeError, RunError
from tunewright_awq.exporter import AwqExport
from tunewright_hf.models.quantizers import has_gpu

ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}]}


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a loud adapter on another's result."""
    full = train(tmp_path_factory.mktemp("full"), "tiny", "full")
    adapter = {"name": "lora", "rank": 4}
    run = train(tmp_path_factory.mktemp("lora"), str(full / "model"), adapter)
    loud(run / "model", seed=0)
    return run


@pytest.fixture(scope="module")
def merged(lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("merged") / "to"
    export(lora, "--to", "safetensors", "--output", to)
    return to


def stored(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return found["quantization_config"]


@pytest.mark.parametrize(
    ("kind", "error"), [("int8", 0.02), ("int8_dynamic", 0.02), ("float8", 0.05)]
)
def test_torchao(lora: Path, merged: Path, tmp_path: Path, kind: str, error: float) -> None:
    to = tmp_path / "to"
    done = export(lora, "--to", "torchao", "--output", to, f"type={kind}", "tolerance=1")
    assert "verified" in done.output
    assert stored(to)["quant_method"] == "torchao"
    assert (to / "model.safetensors").is_file()
    model = AutoModelForCausalLM.from_pretrained(to, dtype="auto")
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("proj"):
                weight = torch.nn.Parameter(module.weight.dequantize(), requires_grad=False)
                module.weight = weight
    assert 1e-3 < distance(model, merged) < error


@pytest.mark.parametrize(
    ("scheme", "dtype", "error"),
    [
        ("FP8_DYNAMIC", torch.float8_e4m3fn, 0.05),
        ("W8A8", torch.int8, 0.02),
        ("W8A16", torch.int32, 0.02),
        ("W4A16", torch.int32, 0.2),
        ("NVFP4A16", torch.uint8, 0.2),
    ],
)
def test_compressed_tensors(
    lora: Path, merged: Path, tmp_path: Path, scheme: str, dtype: torch.dtype, error: float
) -> None:
    to = tmp_path / "to"
    options = [f"scheme={scheme}", "group_size=32", "tolerance=2"]
    done = export(lora, "--to", "compressed_tensors", "--output", to, *options)
    assert "verified" in done.output
    held = load_file(to / "model.safetensors")
    assert dtype in {each.dtype for name, each in held.items() if ".up_proj." in name}
    assert stored(to)["ignore"] == ["lm_head"]
    read = AutoModelForCausalLM.from_pretrained(
        to, quantization_config=CompressedTensorsConfig(dequantize=True), dtype=torch.float32
    )
    assert 1e-3 < distance(read, merged) < error


def test_a_group_that_does_not_fit(lora: Path, tmp_path: Path) -> None:
    options = ["scheme=W4A16", "group_size=128"]
    with pytest.raises(RunError, match="cannot be quantized"):
        export(lora, "--to", "compressed_tensors", "--output", tmp_path / "to", *options)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_gptq(lora: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    texts = [f"Line {n}: the wind over the quiet stone garden." for n in range(16)]
    lines = [
        json.dumps({"messages": [*ROW["messages"][:1], {"role": "assistant", "content": t}]})
        for t in texts
    ]
    rows.write_text("\n".join(lines))
    to = tmp_path / "to"
    options = [f"data={rows}", "bits=8", "group_size=32", "samples=12", "tolerance=0.5"]
    done = export(lora, "--to", "gptq", "--output", to, *options)
    assert "of 12 examples" in done.output
    assert "verified" in done.output
    assert (stored(to)["quant_method"], stored(to)["bits"], stored(to)["group_size"]) == (
        "gptq",
        8,
        32,
    )
    assert not stored(to).get("dataset")
    assert 0 < report(to)["largest_difference"] < 0.5
    assert report(to)["options"]["samples"] == 12
    assert str(tmp_path) not in (to / "config.json").read_text()


def test_calibration_data(lora: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    for written, message in (
        ("{paht: rows.jsonl}", "is no source"),
        (str(tmp_path / "gone.jsonl"), "gone.jsonl"),
    ):
        with pytest.raises(RecipeError, match=message):
            export(lora, "--to", "gptq", "--output", tmp_path / "to", f"data={written}")


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_awq_is_refused_without_a_gpu(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="quantizes on an NVIDIA GPU, and there is none here"):
        export(lora, "--to", "awq", "--output", tmp_path / "to")
    with pytest.raises(RecipeError, match="quantizes on an NVIDIA GPU"):
        export(lora, "--to", "torchao", "--output", tmp_path / "to", "type=int4")


@pytest.mark.gpu
def test_awq(lora: Path, tmp_path: Path) -> None:
    options = ["group_size=32", "samples=2", "tolerance=1"]
    done = export(lora, "--to", "awq", "--output", tmp_path / "to", *options)
    assert "verified" in done.output
    assert stored(tmp_path / "to")["quant_method"] == "awq"
    assert AwqExport.gpu
