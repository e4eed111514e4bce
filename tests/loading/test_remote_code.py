"""Families whose modelling code is only on the hub: the way in which such a checkpoint is loaded,
with a stand-in.

The stand-in is Llama under the other name, in Python files beside the weights. That the real files
of a checkpoint run with this version of transformers is not shown here, and cannot be without them.
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
from tunewright.types import LoadRequest

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
