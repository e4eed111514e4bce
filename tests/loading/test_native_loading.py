"""A checkpoint in its publisher's layout is loaded: what is read, said and refused, and what is no
native one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from native_setup import checkpoint, load
from safetensors.torch import save_file

from tunewright import RunError, TunewrightError
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.native_weights import NativeWeights


def test_what_is_different_is_said(run: FakeRun, tmp_path: Path) -> None:
    for twin, said in (
        ("qwen1", "beyond 4096 tokens the original stretches its positions"),
        ("mimo", "(mtp_layers) are left out"),
        ("index", "the normalisation of lm_head.weight is folded into its numbers"),
        ("deepseek_moe", "the gate of the shared experts, which the original lacks"),
    ):
        made = checkpoint(twin, tmp_path / twin)
        load(run, twin, made.folder)
        assert said in "\n".join(run.notices)


def test_tensors_are_read_one_at_a_time(tmp_path: Path) -> None:
    """A part of one says its shape without being read, and has memory of its own."""
    made = checkpoint("internlm2", tmp_path)
    weights = NativeWeights(tmp_path, made.native.rules)
    lazy = weights["model.layers.0.self_attn.k_proj.weight"]
    assert (lazy.get_shape(), lazy.dtype) == ([32, 64], torch.float32)
    whole = lazy[...]
    assert whole.untyped_storage().nbytes() == whole.nbytes
    assert torch.equal(lazy[3:5], whole[3:5])
    packed = made.tensors["model.layers.0.attention.wqkv.weight"]  # per group: 2 queries, k, v
    assert torch.equal(whole, packed.view(2, 4, 16, 64)[:, 2].reshape(32, 64))


def test_a_tensor_that_the_architecture_lacks(run: FakeRun, tmp_path: Path) -> None:
    made = checkpoint("xverse", tmp_path)
    more = made.tensors | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}
    save_file(more, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match=r"holds model\.layers\.0\.self_attn\.q_proj\.bias, which"):
        load(run, "xverse", tmp_path)


def test_a_config_that_lacks_a_key(run: FakeRun, tmp_path: Path) -> None:
    made = checkpoint("qwen1", tmp_path)
    config = {key: value for key, value in made.config.items() if key != "seq_length"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        RunError, match=r"config\.json: is no config of qwen: KeyError: 'seq_length'"
    ):
        load(run, "qwen1", tmp_path)


@pytest.mark.parametrize(
    ("twin", "changes"),
    [
        ("baichuan2", {"max_position_embeddings": None, "model_max_length": 4096}),  # 13B: ALiBi
        ("chatglm3", {"original_rope": False}),
        ("minicpm", {"rope_scaling": {"type": "longrope"}}),
        ("telechat2", {"architectures": ["TelechatForCausalLM"], "logn": True}),
        ("telechat2", {"embed_layernorm": True}),
        ("xverse", {"num_experts": 64}),
        ("index", {"rope_ratio": 32}),
        ("deepseek_moe", {"architectures": ["OtherForCausalLM"]}),
    ],
)
def test_other_models_of_the_same_type_are_not_native(
    run: FakeRun, tmp_path: Path, twin: str, changes: dict[str, Any]
) -> None:
    made = checkpoint(twin, tmp_path)
    config = {k: v for k, v in (made.config | changes).items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="knows no model_type"):
        load(run, twin, tmp_path)


def test_a_quantized_checkpoint_is_not_native(run: FakeRun, tmp_path: Path) -> None:
    made = checkpoint("qwen1", tmp_path)
    config = {**made.config, "quantization_config": {"bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TunewrightError, match="its weights are quantized by 'None'"):
        load(run, "qwen1", tmp_path)


def test_trust_is_not_needed_and_runs_nothing(run: FakeRun, tmp_path: Path) -> None:
    """Where a native class computes the same, the model's code stays unread even when trusted."""
    made = checkpoint("baichuan2", tmp_path)
    code = {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"}
    (tmp_path / "config.json").write_text(json.dumps(made.config | {"auto_map": code}))
    (tmp_path / "modeling_baichuan.py").write_text('raise SystemExit("it ran")\n')
    for trusted in (False, True):
        loaded = load(run, "baichuan2", tmp_path, trust_remote_code=trusted)
        assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert "auto_map" not in "\n".join(run.notices)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes(run: FakeRun, tmp_path: Path, dtype: str) -> None:
    made = checkpoint("baichuan2", tmp_path)
    loaded = load(run, "baichuan2", tmp_path, dtype=dtype)
    assert {str(each.dtype) for each in loaded.model.parameters()} == {f"torch.{dtype}"}
    wide = torch.nn.functional.normalize(made.tensors["lm_head.weight"])
    assert torch.equal(loaded.model.lm_head.weight, wide.to(getattr(torch, dtype)))


def test_generation_settings_of_the_checkpoint(run: FakeRun, tmp_path: Path) -> None:
    checkpoint("chatglm3", tmp_path)
    (tmp_path / "generation_config.json").write_text('{"top_p": 0.8, "do_sample": true}')
    assert load(run, "chatglm3", tmp_path).model.generation_config.top_p == 0.8
    shutil.rmtree(tmp_path)
