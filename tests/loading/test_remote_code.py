"""Families whose modelling code is only on the hub: the way in which such a checkpoint is loaded,
with a stand-in.

The stand-in is Llama under the other name, in Python files beside the weights; further below with
rotary tables as code for transformers 4 makes them. That the real files of a checkpoint run with
this version of transformers is not shown here, and cannot be without them.
"""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import Listener
from transformers import CONFIG_MAPPING

from tunewright import RunError, registry
from tunewright.types import LoadedModel, LoadRequest

CONFIGURATION = """
from transformers import LlamaConfig


class StandInConfig(LlamaConfig):
    model_type = "{model_type}"
"""
MODELING = """
from transformers import LlamaForCausalLM

from .configuration_stand_in import StandInConfig


class StandInForCausalLM(LlamaForCausalLM):
    config_class = StandInConfig
"""
REMOTE = {
    point.name: point.value
    for point in metadata.entry_points(group="tunewright.model_type")
    if point.name not in CONFIG_MAPPING
}


@pytest.fixture(params=sorted(REMOTE))
def checkpoint(request: pytest.FixtureRequest, run: Listener, tmp_path: Path) -> tuple[Any, Path]:
    """The family, and a checkpoint with code of its own."""
    family: Any = registry.load(registry.find("family", REMOTE[request.param]))
    made = family(family.Options(device="cpu"), "").load_model(
        run, LoadRequest("tiny", weights="none")
    )
    llama: Any = registry.load(registry.find("family", "llama"))
    twin = llama(llama.Options(device="cpu"), "").load_model(run, LoadRequest("tiny"))
    twin.model.resize_token_embeddings(len(made.tokenizer))
    twin.model.config.pad_token_id = made.tokenizer.pad_token_id
    twin.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    code = {
        "AutoConfig": "configuration_stand_in.StandInConfig",
        "AutoModelForCausalLM": "modeling_stand_in.StandInForCausalLM",
    }
    config |= {
        "model_type": request.param,
        "architectures": ["StandInForCausalLM"],
        "auto_map": code,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "configuration_stand_in.py").write_text(
        CONFIGURATION.format(model_type=request.param)
    )
    (tmp_path / "modeling_stand_in.py").write_text(MODELING)
    return family(family.Options(device="cpu"), ""), tmp_path


@pytest.mark.usefixtures("modules_of_checkpoints")
def test_code_is_run_only_where_it_is_granted(run: Listener, checkpoint: tuple[Any, Path]) -> None:
    family, folder = checkpoint
    with pytest.raises(RunError, match="knows no model_type") as caught:
        family.load_model(run, LoadRequest(str(folder)))
    assert "--trust-remote-code" in caught.value.hint
    loaded = family.load_model(run, LoadRequest(str(folder), trust_remote_code=True))
    assert type(loaded.model).__name__ == "StandInForCausalLM"
    with torch.no_grad():
        assert torch.isfinite(loaded.model(input_ids=torch.tensor([[5, 6, 7]])).logits).all()


def test_lines_say_which_code_is_remote() -> None:
    """A family that serves a model_type which transformers does not know says so beside its
    checkpoints."""
    silent = set()
    for family in set(REMOTE.values()):
        plugin: Any = registry.load(registry.find("family", family))
        lines = plugin(plugin.Options(), "")._data("checkpoints.toml")["line"]
        if not any(line.get("remote_code") for line in lines):
            silent.add(family)
    assert silent == set()


# ---- code that was written for transformers 4 ----------------------------------------------------

OLD_CODE = """
import torch
from torch import nn
from transformers import LlamaForCausalLM

from .configuration_stand_in import StandInConfig


class OldRotaryEmbedding(nn.Module):
    def __init__(self, dim, positions, base=10000):
        super().__init__()
        inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim))
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        angles = torch.outer(torch.arange(positions).float(), inv_freq)
        angles = torch.cat((angles, angles), dim=-1)
        {tables}

    def forward(self, x, position_ids):
        {forward}
        return self.cos[position_ids].to(x.dtype), self.sin[position_ids].to(x.dtype)


class StandInForCausalLM(LlamaForCausalLM):
    config_class = StandInConfig

    def __init__(self, config):
        super().__init__(config)
        self.model.rotary_emb = OldRotaryEmbedding(config.head_dim, 4096)
"""
BUFFERS = """self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)"""
TENSORS = "self.cos, self.sin = angles.cos(), angles.sin()"


def old_checkpoint(
    run: Listener, folder: Path, tables: str, forward: str = "pass"
) -> tuple[Any, Path, LoadedModel]:
    """The family, a checkpoint with code of transformers 4, and the native model of its weights."""
    llama: Any = registry.load(registry.find("family", "llama"))
    family = llama(llama.Options(device="cpu"), "")
    native = family.load_model(run, LoadRequest("tiny"))
    native.model.save_pretrained(folder)
    native.tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "stand_in",
        "architectures": ["StandInForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_stand_in.StandInConfig",
            "AutoModelForCausalLM": "modeling_stand_in.StandInForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    configuration = CONFIGURATION.format(model_type="stand_in")
    (folder / "configuration_stand_in.py").write_text(configuration)
    code = OLD_CODE.format(tables=tables, forward=forward)
    (folder / "modeling_stand_in.py").write_text(code)
    return family, folder, native


@pytest.mark.usefixtures("modules_of_checkpoints")
@pytest.mark.parametrize("tables", [BUFFERS, TENSORS], ids=["buffers", "tensors"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tables_that_init_computes_are_computed(
    run: Listener, tmp_path: Path, tables: str, dtype: str
) -> None:
    """transformers 5 builds without storage and fills such buffers with whatever memory held."""
    family, folder, native = old_checkpoint(run, tmp_path, tables)
    request = LoadRequest(str(folder), trust_remote_code=True, dtype=dtype)
    loaded = family.load_model(run, request)
    ids = torch.arange(5, 205)[None]
    with torch.no_grad():
        found = loaded.model(input_ids=ids).logits
        expected = native.model.to(found.dtype)(input_ids=ids).logits
    bound = 1e-5 if dtype == "float32" else 2e-2  # the tables are rounded, or made, in bfloat16
    assert float((found - expected).abs().max()) <= bound * float(expected.abs().max())


@pytest.mark.usefixtures("modules_of_checkpoints")
@pytest.mark.parametrize(
    ("forward", "problem"),
    [
        ("self.cos = self.cos * float('nan')", "gives numbers that are not finite"),
        ("self.cos = self.cos * 0.5", "other numbers for the same tokens a second time"),
        ("position_ids = position_ids * x.shape[1]", "where padding follows"),
        ("raise KeyError('no such cache')", "its own code cannot run: KeyError: 'no such cache'"),
    ],
    ids=["nan", "random", "padding", "raises"],
)
def test_code_that_does_not_run_right_is_refused(
    run: Listener, tmp_path: Path, forward: str, problem: str
) -> None:
    family, folder, _ = old_checkpoint(run, tmp_path, BUFFERS, forward)
    with pytest.raises(RunError) as caught:
        family.load_model(run, LoadRequest(str(folder), trust_remote_code=True))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "transformers" in caught.value.hint
