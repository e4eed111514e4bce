"""Checkpoints whose weights are quantized already, with what the default install reads: they are
recognised, and what contradicts them is an error in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.run import Run
from tunewright_hf.models.modules import base_model

RECIPE: dict[str, Any] = {
    "family": {"name": "qwen", "device": "cpu"},
    "template": "qwen3",
    "stage": "sft",
    "loggers": [],
    "data": [{"path": "none.jsonl"}],
    "adapter": {"name": "lora", "rank": 4},
    "training": {"precision": "fp32"},
    "output": "none",
}
IDS = torch.arange(12).reshape(2, 6)  # (B, T)


def load(model: str, combined: bool = False, **sections: Any) -> Any:
    return Run(resolve(RECIPE | {"model": model} | sections, combined=combined)).load()


def logits(loaded: Any) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model.eval()(input_ids=IDS).logits.float()


def saved(folder: Path, **quantizer: Any) -> Path:
    """The tiny twin, quantized by bitsandbytes and saved."""
    loaded = load("tiny", quantizer={"name": "bitsandbytes", **quantizer})
    base_model(loaded.model.unload()).save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("options", [{"bits": 4}, {"bits": 4, "type": "fp4"}, {"bits": 8}])
def test_bitsandbytes_is_recognised(options: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path, **options)
    kinds = {str(tensor.dtype) for tensor in load_file(folder / "model.safetensors").values()}
    assert kinds & {"torch.uint8", "torch.int8"}
    expected = load("tiny", quantizer={"name": "bitsandbytes", **options})
    found = load(str(folder))
    assert found.quantized == expected.quantized and len(found.quantized) == 14
    assert torch.equal(logits(found), logits(expected))
    same = load(str(folder), quantizer={"name": "bitsandbytes", **options})
    assert torch.equal(logits(same), logits(expected))


def test_recognised_layers_keep_their_layout(tmp_path: Path) -> None:
    """As those that a recipe's quantizer makes: bitsandbytes would repack them in evaluation, and
    read them wrongly afterwards."""
    model = load(str(saved(tmp_path))).model
    flags = [
        module.support_avx512bf16_for_cpu
        for module in model.modules()
        if hasattr(module, "support_avx512bf16_for_cpu")
    ]
    assert flags and not any(flags)


def check(folder: Path, said: str, **sections: Any) -> None:
    """`recipe check` refuses it in one line, and so does loading, for models of the hub."""
    for combined in (True, False):
        with pytest.raises(RecipeError) as caught:
            load(str(folder), combined, **sections)
        assert len(str(caught.value).splitlines()) == 1
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"adapter": "full"}, "cannot be trained"),
        ({"adapter": {"name": "freeze", "trainable_layers": 1}}, "cannot be trained"),
        ({"quantizer": "fp8"}, "quantized by bitsandbytes already, not by fp8"),
    ],
)
def test_what_contradicts_it(sections: dict[str, Any], said: str, tmp_path: Path) -> None:
    check(saved(tmp_path), said, **sections)


def test_other_options_than_the_checkpoints(tmp_path: Path) -> None:
    folder = saved(tmp_path, bits=8)
    with pytest.raises(RecipeError, match="load_in_4bit is True, and the model's weights have"):
        load(str(folder), quantizer={"name": "bitsandbytes", "bits": 4})


def test_a_plain_model_is_no_checkpoint_of_a_method(tmp_path: Path) -> None:
    loaded = load("tiny", adapter="full")
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="fp8 reads quantized checkpoints, and the weights of"):
        load(str(tmp_path), quantizer="fp8")


@pytest.mark.parametrize("written", [{"quant_method": "vptq"}, {"bits": 4}])
def test_methods_that_nothing_reads(written: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["quantization_config"] = written
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(RecipeError, match="its weights are quantized by") as caught:
        load(str(folder))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("adapter", ["lisa", "llama_pro", "spectrum"])
def test_every_adapter_that_trains_the_models_own_weights_is_refused(
    adapter: str, tmp_path: Path
) -> None:
    config = {"model_type": "qwen2", "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(
        RecipeError, match=rf"adapter: .*\(fp8\) and cannot be trained, and {adapter}"
    ):
        resolve(RECIPE | {"model": str(tmp_path), "adapter": adapter})


def test_a_method_of_any_length_is_cut_and_found_by_check(tmp_path: Path) -> None:
    config = {"model_type": "qwen2", "quantization_config": {"quant_method": "x" * 9999}}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(RecipeError, match="which no installed plugin reads") as caught:
        resolve(RECIPE | {"model": str(tmp_path)})
    assert len(str(caught.value)) < 500


def test_fp8_is_dequantized(tmp_path: Path) -> None:
    plain = load("tiny")
    loaded = load("tiny", quantizer="fp8")
    assert not loaded.quantized and {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    distance = (logits(loaded) - logits(plain)).norm() / logits(plain).norm()
    assert 0 < distance < 0.1


@pytest.mark.parametrize("name", ["aqlm", "awq", "gptq", "hqq", "quanto", "torchao"])
def test_a_missing_library_is_told_before_anything_loads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_hf.models.quantizers.is_installed", lambda module: False)
    with pytest.raises(RecipeError, match=f"{name} needs .*, which is not installed") as caught:
        resolve(RECIPE | {"model": "tiny", "quantizer": name})
    assert "tunewright env create quantizers" in str(caught.value)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_what_needs_a_gpu_is_told_before_anything_loads(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_hf.models.quantizers.is_installed", lambda module: True)
    monkeypatch.setattr("tunewright_hf.models.quantizers.has_gpu", lambda: device == "cpu")
    asked = RECIPE | {"model": "tiny", "family": {"name": "qwen", "device": device}}
    with pytest.raises(RecipeError, match="int4 needs an NVIDIA GPU"):
        resolve(asked | {"quantizer": {"name": "torchao", "type": "int4"}})
    resolve(asked | {"quantizer": {"name": "torchao", "type": "int8"}})


def test_qat_trains_the_models_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewright_hf.models.quantizers.is_installed", lambda module: True)
    asked = RECIPE | {"model": "tiny"}
    quantizer: dict[str, Any] = {"name": "torchao", "type": "int4", "qat": True}
    with pytest.raises(RecipeError, match="adapter lora leaves them alone"):
        resolve(asked | {"quantizer": quantizer})
    resolve(asked | {"quantizer": quantizer, "adapter": "full"})
    with pytest.raises(RecipeError, match="not for float8"):
        resolve(asked | {"quantizer": quantizer | {"type": "float8"}, "adapter": "full"})


def refused(folder: Path, stored: dict[str, Any], said: str, **sections: Any) -> None:
    """`recipe check` refuses the checkpoint in one line, and so does loading, for models of the
    hub."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stored}))
    check(folder, said, **sections)


@pytest.fixture
def plain_folder(tmp_path: Path) -> Path:
    loaded = load("tiny", adapter="full")
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["hqq", "quanto", "eetq"])
@pytest.mark.parametrize("named", [False, True])
def test_quantizers_of_plain_models_read_no_checkpoints(
    name: str, named: bool, plain_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_hf.models.quantizers.is_installed", lambda module: True)
    monkeypatch.setattr("tunewright_hf.models.quantizers.has_gpu", lambda: True)
    sections: dict[str, Any] = {"family": {"name": "qwen", "device": "auto"}}
    if named:
        sections["quantizer"] = name
    refused(plain_folder, {"quant_method": name}, "quantized", **sections)


def group(targets: str = "Linear", **weights: Any) -> dict[str, Any]:
    return {"targets": [targets], "weights": {"num_bits": 4, "type": "int"} | weights}


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"format": "marlin-24"}, "format 'marlin-24'"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "format 'sparse-24-bitmask'"),
        ({"config_groups": {"0": group(actorder="group")}}, "ordered by activations"),
        ({"transform_config": {"config_groups": {"u": {}}}}, "transformed"),
        (
            {"config_groups": {"0": group("re:.*attn"), "1": group("re:.*mlp", num_bits=8)}},
            "quantized in 2 ways in its layers",
        ),
    ],
)
def test_compressed_tensors_that_would_be_read_wrongly(
    stored: dict[str, Any], said: str, plain_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_hf.models.quantizers.is_installed", lambda module: True)
    method = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    refused(plain_folder, method | stored, said)


def test_experts_may_be_quantized_in_another_way() -> None:
    from tunewright_compressed_tensors.schemes import unreadable

    groups = {"0": group("re:.*attn"), "1": group("re:.*experts.*", num_bits=8)}
    assert not [*unreadable({"format": "pack-quantized", "config_groups": groups})]
    assert [*unreadable({"config_groups": [1], "format": 3})]  # of any content


@pytest.mark.parametrize(
    ("quantizer", "adapter", "said"),
    [
        ("hqq", "adalora", "adalora cannot adapt layers that hqq has quantized"),
        ("bitsandbytes", "hra", "hra cannot adapt layers that bitsandbytes has quantized"),
        ({"name": "torchao", "qat": True}, "llama_pro", "cannot be copied by llama_pro"),
        ("fp8", "hra", ""),  # plain weights, once they are loaded
        ("hqq", "oft", ""),
    ],
)
def test_adapters_that_cannot_adapt_quantized_layers(
    quantizer: Any, adapter: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_hf.models.quantizers.is_installed", lambda module: True)
    asked = RECIPE | {"model": "tiny", "quantizer": quantizer, "adapter": adapter}
    if not said:
        resolve(asked)
        return
    with pytest.raises(RecipeError, match=said) as caught:
        resolve(asked)
    assert len(str(caught.value).splitlines()) == 1


def test_adapters_that_cannot_adapt_a_quantized_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_hf.models.quantizers.is_installed", lambda module: True)
    config = {"model_type": "qwen2", "quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    asked = RECIPE | {"model": str(tmp_path)}
    with pytest.raises(RecipeError, match="ia3 cannot adapt layers that gptq has quantized"):
        resolve(asked | {"adapter": "ia3"})
    resolve(asked | {"adapter": "adalora"})


@pytest.mark.parametrize("bits", [4, 8])
def test_ia3_is_merged_into_dequantized_weights(bits: int) -> None:
    """PEFT refuses what it takes for a model of bitsandbytes."""
    quantizer = {"name": "bitsandbytes", "bits": bits}
    asked = RECIPE | {"model": "tiny", "quantizer": quantizer, "adapter": "ia3"}
    run = Run(resolve(asked))
    loaded = run.load()
    with torch.no_grad():
        for name in loaded.trained:
            loaded.model.get_parameter(name).mul_(1.5)
    expected = logits(loaded)
    merged = run.plugin("adapter").merge(loaded)
    assert not merged.quantized
    assert (logits(merged) - expected).norm() < 0.05 * expected.norm()
