"""The whole path of a user's checkpoint in its publisher's layout: trained, saved, reloaded, asked,
and exported in its own layout again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from native_setup import TWINS, Checkpoint, batch, checkpoint, load, template
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import tunewright
from tunewright import RunError
from tunewright.inference import EngineRequest, GenerateRequest, answers
from tunewright.types import AdapterRequest, Conversation, Message
from tunewright_conformance.doubles import FakeRun
from tunewright_export import command
from tunewright_full import Full
from tunewright_hf.models.native import MARK

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
