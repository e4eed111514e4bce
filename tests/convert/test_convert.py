"""`tunewright models convert`: weights that are pickles become safetensors."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from convert.conftest import pickled
from loading.fake_hub import fake_hub
from loading.loading_setup import load, logits
from tunewright import RunError
from tunewright_conformance.doubles import FakeRun
from tunewright_models import app, conversion
from tunewright_models.conversion import convert


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_one_file(checkpoint: Path, to: Path, options: dict[str, Any]) -> None:
    weights = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)  # noqa: TID251
    weights["model.embed_tokens.weight"] = weights["lm_head.weight"]  # share their memory
    weights["model.norm.weight"] = torch.nn.Parameter(weights["model.norm.weight"].bfloat16())
    turned = weights["model.layers.0.mlp.down_proj.weight"].T.contiguous().T
    weights["model.layers.0.mlp.down_proj.weight"] = turned
    pickled(weights, checkpoint / "pytorch_model.bin", **options)
    (checkpoint / "modeling_own.py").write_text("x = 1\n")
    done = CliRunner().invoke(app, ["convert", str(checkpoint), "--to", str(to)])
    assert done.exit_code == 0, done.output
    assert f"{to}: {len(weights)} tensors in 1 safetensors files; the pickles" in done.output
    assert "network" in done.output or "sockets refused" in done.output
    found = load_file(to / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name
    kept = {"config.json", "tokenizer.json", "tokenizer_config.json", "modeling_own.py"}
    assert kept < {path.name for path in to.iterdir()}
    assert [path.name for path in to.glob("*.bin*")] == []


def test_converted_loads_as_the_original(checkpoint: Path, to: Path) -> None:
    run = FakeRun()
    with pytest.raises(RunError, match="pickle weights are not loaded") as caught:
        load(run, str(checkpoint), twin="llama2")
    assert "tunewright models convert" in caught.value.hint
    convert(str(checkpoint), None, to)
    found = load(run, str(to), twin="llama2")
    assert torch.equal(logits(found), logits(load(run, twin="llama2")))


def test_shards(checkpoint: Path, to: Path) -> None:
    weights = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)  # noqa: TID251
    (checkpoint / "pytorch_model.bin").unlink()
    names = sorted(weights)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2]}
    shards["pytorch_model-00002-of-00002.bin"] = names[1::2]
    for shard, held in shards.items():
        pickled({name: weights[name] for name in held}, checkpoint / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    index = checkpoint / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    made = convert(str(checkpoint), None, to)
    assert (made.tensors, made.files) == (len(weights), 2)
    assert not (to / index.name).exists()
    found = json.loads((to / "model.safetensors.index.json").read_text())["weight_map"]
    assert found.keys() == weights.keys()
    assert set(found.values()) == {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    assert torch.equal(
        logits(load(FakeRun(), str(to), twin="llama2")), logits(load(FakeRun(), twin="llama2"))
    )


def test_large_files_are_split(checkpoint: Path, to: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tunewright_models import pickle_worker as w\n"
        f"w.MAX_SHARD = 100_000; source = Path({str(checkpoint)!r}, 'pytorch_model.bin')\n"
        "print(len(w.write([source], Path(sys.argv[1]))))"
    )
    to.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, to], capture_output=True, text=True, check=True
    )
    parts = sorted(to.glob("part-*.safetensors"))
    assert len(parts) == int(done.stdout) > 1
    held = [name for part in parts for name in load_file(part)]
    assert sorted(held) == sorted(set(held))


def test_adapter(tmp_path: Path, to: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    pickled({"lora_A.weight": torch.ones(2)}, folder / "adapter_model.bin")
    convert(str(folder), None, to)
    assert {path.name for path in to.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_model_of_the_hub(checkpoint: Path, to: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with fake_hub(files | {"training_args.bin": b"evil", "modeling_own.py": b"x = 1"}) as hub:
        done = subprocess.run(
            [sys.executable, "-m", "tunewright", "models", "convert", "a/b", "--to", to],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_OFFLINE": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not [path for path in hub.asked if path.endswith("training_args.bin")]
    held = {path.name for path in to.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "modeling_own.py"} <= held


def test_full_disk(checkpoint: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps({"isolation": "", "problem": "SafetensorError: No space left on device"})
    done = subprocess.CompletedProcess([], 0, stdout=said.encode())
    monkeypatch.setattr(conversion.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RunError, match=r"cannot be written: no space left$"):
        convert(str(checkpoint), None, to)
    assert [path.name for path in to.parent.iterdir()] == ["pickled"]
