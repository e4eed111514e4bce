"""The whole path of a user's checkpoint in its publisher's layout: trained, saved, reloaded, asked,
and exported in its own layout again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from native_setup import TWINS, Checkpoint, batch, checkpoint, load, template
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import tunewright
from tunewright import RunError, TunewrightError
from tunewright.inference import EngineRequest, GenerateRequest, answers
from tunewright.types import AdapterRequest, Conversation, Message
from tunewright_conformance.doubles import FakeRun
from tunewright_export import command
from tunewright_full import Full
from tunewright_hf.models.native import MARK
from tunewright_hf.models.native_weights import NativeWeights

every_twin = pytest.mark.parametrize("twin", TWINS)
FOLDED = ("baichuan2", "index")  # whose head is normalised
CONSTANT = {"deepseek_moe": "shared_expert_gate.weight", "telechat2": "q_proj.bias"}


def train(made: Checkpoint, folder: Path, **changes: Any) -> Path:
    """The run folder of two steps on two rows."""
    data = folder / "rows.jsonl"
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}]}
    data.write_text("\n".join([json.dumps(row)] * 2))
    recipe = {
        "model": str(made.folder),
        "family": {"name": TWINS[made.twin][0], "device": "cpu"},
        "template": template(made.twin),
        "adapter": "full",
        "stages": ["sft"],
        "data": [{"path": str(data)}],
        "training": {"max_steps": 2, "learning_rate": 0.02, "precision": "fp32"},
        "output": str(folder / "run"),
        "loggers": [],
        **changes,
    }
    tunewright.train(recipe)
    return folder / "run"


def export(run: Path, to: Path, layout: str = "original") -> Result:
    import typer

    app = typer.Typer()
    app.command()(command)
    arguments = [str(run), "--to", "safetensors", "--output", str(to), f"layout={layout}"]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


# ---- train, save, reload, chat, export -----------------------------------------------------------


@every_twin
def test_full_tuning_and_back(tmp_path: Path, twin: str) -> None:
    """What is exported computes, in its own architecture, what was trained."""
    made = checkpoint(twin, tmp_path / "checkpoint")
    run = tunewright.open_run(train(made, tmp_path))
    loaded = run.load_policy()
    saved = json.loads((run.folder / "model" / "config.json").read_text())
    assert saved["model_type"] == made.native.config["model_type"]
    assert saved[MARK]["model_type"] == made.config["model_type"]
    result = export(run.folder, tmp_path / "exported")
    assert result.exit_code == 0, result.output
    exported = load_file(tmp_path / "exported" / "model.safetensors")
    assert exported.keys() == made.tensors.keys()
    assert (tmp_path / "exported" / "config.json").read_bytes() == (
        made.folder / "config.json"
    ).read_bytes()
    if twin in FOLDED:
        assert "the original code normalises them again" in result.stderr
        return
    ids, mask = batch(40)
    with torch.no_grad():
        found = loaded.model(input_ids=ids, attention_mask=mask).logits[mask == 1]
        before, after = (made.reference(w, ids, mask)[mask == 1] for w in (made.tensors, exported))
    scale = float(found.abs().max())
    assert float((found - after).abs().max()) <= 2e-5 * scale
    assert float((before - after).abs().max()) > 1e-2 * scale, "nothing was trained"


@every_twin
def test_an_adapter_and_back(tmp_path: Path, twin: str) -> None:
    """What LoRA does not touch comes back to the bit, a normalised head too; and the chat works."""
    made = checkpoint(twin, tmp_path / "checkpoint")
    run = tunewright.open_run(train(made, tmp_path, adapter={"name": "lora", "rank": 2}))
    request = GenerateRequest(Conversation([Message("user", "Hi")]), max_new_tokens=4)
    with run.call("engine", "open_engine", EngineRequest()) as engine:
        assert list(answers(engine, request))[-1].finish_reason is not None
    result = export(run.folder, tmp_path / "exported")
    assert result.exit_code == 0 and "does not compare this form" in result.stderr
    exported = load_file(tmp_path / "exported" / "model.safetensors")
    assert exported.keys() == made.tensors.keys()
    same = {name for name in exported if torch.equal(exported[name], made.tensors[name])}
    changed = exported.keys() - same
    assert changed and all("norm" not in name and "ln_" not in name for name in changed)
    ends = ("lm_head", "output", "embed", "wte", "gate.weight")
    assert {name for name in exported if any(end in name for end in ends)} - changed
    ids, mask = batch(7)
    with torch.no_grad():
        found = run.load_policy().model(input_ids=ids, attention_mask=mask).logits[mask == 1]
        expected = made.reference(exported, ids, mask)[mask == 1]
    assert float((found - expected).abs().max()) <= 2e-5 * float(expected.abs().max())


@every_twin
def test_untrained_weights_come_back_to_the_bit(run: FakeRun, tmp_path: Path, twin: str) -> None:
    from tunewright_hf.models.export import save_result
    from tunewright_hf.models.native_export import export_original

    made = checkpoint(twin, tmp_path / "checkpoint")
    halves = {name: each.bfloat16() for name, each in made.tensors.items()}
    save_file(halves, made.folder / "model.safetensors", {"format": "pt"})
    save_result(load(run, twin, made.folder), tmp_path / "native")
    told: list[str] = []
    export_original(
        tmp_path / "native", made.folder, tmp_path / "back", lambda m, _: told.append(m)
    )
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == halves.keys() and told == []
    assert all(torch.equal(back[name], halves[name]) for name in halves)


@pytest.mark.parametrize("twin", ["chatglm3", "deepseek_moe", "telechat2"])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_while_it_is_read(tmp_path: Path, twin: str, bits: int) -> None:
    """A quantized base is trained with LoRA, and merged into the publisher's layout."""
    made = checkpoint(twin, tmp_path / "checkpoint")
    changes = {
        "adapter": {"name": "lora", "rank": 2},
        "quantizer": {"name": "bitsandbytes", "bits": bits},
    }
    run = train(made, tmp_path, **changes)
    assert tunewright.open_run(run).load_policy().quantized
    assert export(run, tmp_path / "exported").exit_code == 0
    exported = load_file(tmp_path / "exported" / "model.safetensors")
    assert exported.keys() == made.tensors.keys()
    for name, each in exported.items():
        before = made.tensors[name].to(each.dtype)
        assert (each - before).norm() < (0.3 if bits == 4 else 0.15) * before.norm(), name


# ---- what the original lacks ---------------------------------------------------------------------


@pytest.mark.parametrize("twin", CONSTANT)
def test_what_the_original_lacks_is_not_trained(run: FakeRun, tmp_path: Path, twin: str) -> None:
    """Nor is it in a model that was saved as a native one and is trained again."""
    made = checkpoint(twin, tmp_path / "checkpoint")
    loaded = load(run, twin, made.folder)
    loaded.model.save_pretrained(tmp_path / "native")
    loaded.tokenizer.save_pretrained(tmp_path / "native")
    for each in (loaded, load(run, twin, tmp_path / "native")):
        full = Full(Full.Options()).apply_adapter(run, AdapterRequest(each))
        assert full.trained is not None
        assert not any(name.endswith(CONSTANT[twin]) for name in full.trained)
        ids, mask = batch(7)
        full.model(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()
        constants = {n: b for n, b in full.model.named_buffers() if n.endswith(CONSTANT[twin])}
        assert constants and all(not each.any() for each in constants.values())
        assert constants.keys() <= full.model.state_dict().keys()


def test_a_constant_that_has_changed_is_not_exported(tmp_path: Path) -> None:
    made = checkpoint("deepseek_moe", tmp_path / "checkpoint")
    run = train(made, tmp_path)
    path = run / "model" / "model.safetensors"
    weights = load_file(path)
    weights[next(name for name in weights if name.endswith("expert_gate.weight"))] += 0.1
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(RunError, match=r"shared_expert_gate\.weight has changed"):
        export(run, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


# ---- files ---------------------------------------------------------------------------------------


def test_shards_code_and_left_out_layers_come_back(tmp_path: Path) -> None:
    """Files of the same names hold the same tensors; code is copied and never imported."""
    made = checkpoint("mimo", tmp_path / "checkpoint")
    extra = {"model.mtp_layers.0.input_proj.weight": torch.randn(4, 8)}
    names = sorted(made.tensors)
    shards = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, held in shards.items():
        some = {name: made.tensors[name] for name in held} | (extra if file[0] == "b" else {})
        save_file(some, made.folder / file, {"format": "pt"})
    where = {name: file for file, held in shards.items() for name in held}
    where |= dict.fromkeys(extra, "b.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (made.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (made.folder / "model.safetensors").unlink()
    code = 'raise SystemExit("it ran")\n'
    (made.folder / "modeling_mimo.py").write_text(code)
    run = train(made, tmp_path)
    assert export(run, tmp_path / "exported").exit_code == 0
    assert (tmp_path / "exported" / "modeling_mimo.py").read_text() == code
    for file in shards:
        there = load_file(tmp_path / "exported" / file)
        assert there.keys() == load_file(made.folder / file).keys()
    assert torch.equal(there[next(iter(extra))], next(iter(extra.values())))
    written = json.loads((tmp_path / "exported" / "model.safetensors.index.json").read_text())
    assert written["weight_map"] == where


def test_the_native_layout_is_a_checkpoint_of_its_own(run: FakeRun, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = checkpoint("xverse", tmp_path / "checkpoint")
    trained = train(made, tmp_path, adapter={"name": "lora", "rank": 2})
    assert export(trained, tmp_path / "merged", "native").exit_code == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids, _ = batch(7)
    with torch.no_grad():
        expected = tunewright.open_run(trained).load_policy().model(input_ids=ids).logits
        assert torch.allclose(model(input_ids=ids).logits, expected, atol=1e-5)


def test_a_checkpoint_of_transformers_has_no_other_layout(tmp_path: Path) -> None:
    made = checkpoint("xverse", tmp_path / "checkpoint")
    run = train(made, tmp_path)
    native = made._replace(folder=run / "model")
    (tmp_path / "again").mkdir()
    again = train(native, tmp_path / "again")
    with pytest.raises(RunError, match="is in the layout of transformers already"):
        export(again, tmp_path / "exported")


def test_only_the_checkpoint_that_was_trained_is_written(run: FakeRun, tmp_path: Path) -> None:
    from tunewright_hf.models.export import save_result
    from tunewright_hf.models.native_export import export_original

    made = checkpoint("index", tmp_path / "checkpoint")
    loaded = load(run, "index", made.folder)
    save_result(loaded, tmp_path / "native")
    loaded.model.resize_token_embeddings(1100)
    save_result(loaded, tmp_path / "grown")
    other = checkpoint("index", tmp_path / "other", rms_norm_eps=1e-5)
    for saved, original, problem in (
        ("native", other.folder, "was not trained from this checkpoint"),
        ("grown", made.folder, r"weight is \[1100, 64\], and \[\d+, 64\] in the"),
    ):
        with pytest.raises(RunError, match=problem):
            export_original(tmp_path / saved, original, tmp_path / "back", lambda said, _: None)
        assert not (tmp_path / "back").exists()


# ---- what is loaded, and what is not -------------------------------------------------------------


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
