"""Checkpoints whose modelling code lies beside their weights, written for transformers 4, with a
stand-in that is written as such code is.

That the real files of a checkpoint run with this version of transformers is not shown here, and
cannot be without them.
"""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from loading_setup import apply, said
from remote_code_setup import IDS, changed, logits, trusted, written
from transformers import CONFIG_MAPPING, GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicCache

from stand_in import write_stand_in
from tunewright import RecipeError, RunError, registry
from tunewright.types import LoadRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.models.export import save_result
from tunewright_lora import Lora


def is_refused(model_type: str, family: str) -> bool:
    """Whether the family names other checkpoints to take, whatever is granted."""
    plugin: Any = registry.load(registry.find("family", family))
    refused = plugin(plugin.Options(), "")._data("checkpoints.toml").get("refused", ())
    return any(each["model_type"] == model_type for each in refused)


REMOTE = {
    point.name: point.value
    for point in metadata.entry_points(group="tunewright.model_type")
    if point.name not in CONFIG_MAPPING and not is_refused(point.name, point.value)
}
pytestmark = pytest.mark.usefixtures("modules_of_checkpoints")


# ---- whose code is run ---------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", sorted(REMOTE))
def test_code_is_run_only_where_it_is_granted(
    run: FakeRun, tmp_path: Path, model_type: str
) -> None:
    plugin: Any = registry.load(registry.find("family", REMOTE[model_type]))
    family = plugin(plugin.Options(device="cpu"), "")
    tokenizer = family.load_model(run, LoadRequest("tiny", weights="none")).tokenizer
    write_stand_in(tmp_path, tokenizer, model_type=model_type)
    with pytest.raises(RunError, match="knows no model_type") as caught:
        family.load_model(run, LoadRequest(str(tmp_path)))
    assert "--trust-remote-code" in caught.value.hint
    loaded = family.load_model(run, LoadRequest(str(tmp_path), trust_remote_code=True))
    assert type(loaded.model).__name__ == "StandInForCausalLM"


def test_lines_say_which_code_is_remote() -> None:
    """A family that serves a model_type which transformers does not know says so beside its
    checkpoints, or which native class computes the same."""
    silent = set()
    for family in set(REMOTE.values()):
        plugin: Any = registry.load(registry.find("family", family))
        lines = plugin(plugin.Options(), "")._data("checkpoints.toml")["line"]
        if not any(line.get("remote_code") or line.get("native") for line in lines):
            silent.add(family)
    assert silent == set()


def test_nothing_of_transformers_is_changed(run: FakeRun, tmp_path: Path) -> None:
    before = [dict(vars(each)) for each in (PreTrainedModel, GenerationMixin, DynamicCache)]
    written(run, tmp_path)
    trusted(run, tmp_path)
    assert not hasattr(transformers.utils.import_utils, "is_torch_fx_available")
    for each, old in zip((PreTrainedModel, GenerationMixin, DynamicCache), before, strict=True):
        assert vars(each).keys() == old.keys()
        assert [name for name, value in vars(each).items() if value is not old[name]] == []


# ---- what it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "config",
    [{}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"tie_word_embeddings": True}],
    ids=["plain", "scaled", "tied"],
)
def test_logits_are_those_of_the_weights(
    run: FakeRun, tmp_path: Path, config: dict[str, Any], dtype: str
) -> None:
    """transformers 5 builds without storage, and puts whatever memory held in place of tables."""
    native = written(run, tmp_path, **config)
    loaded = trusted(run, tmp_path, dtype=dtype)
    found = logits(loaded.model)
    expected = logits(native.to(getattr(torch, dtype)))
    bound = 1e-5 if dtype == "float32" else 3e-2  # the tables are rounded to bfloat16
    assert float((found - expected).abs().max()) <= bound * float(expected.abs().max())
    head, embeddings = loaded.model.output_layer, loaded.model.model.tok_embeddings
    assert (head.weight is embeddings.weight) == bool(config.get("tie_word_embeddings"))


def test_saved_and_loaded_again(run: FakeRun, tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 2.0}
    written(run, tmp_path / "a", rope_scaling=scaling, tie_word_embeddings=True)
    loaded = trusted(run, tmp_path / "a")
    save_result(loaded, tmp_path / "b")
    assert json.loads((tmp_path / "b/config.json").read_text())["rope_scaling"] == scaling
    again = trusted(run, tmp_path / "b")
    assert torch.equal(logits(again.model), logits(loaded.model))


CACHE_OBJECTS = (
    (
        "from transformers.activations import ACT2FN",
        "from transformers.activations import ACT2FN\nfrom transformers.cache_utils import Cache, "
        "DynamicCache",
    ),
    ("position_ids, past_key_value, head_mask", "position_ids, cache, layer, head_mask"),
    (
        """        if past_key_value is not None:
            key = torch.cat([past_key_value[0], key], dim=2)
            value = torch.cat([past_key_value[1], value], dim=2)
        past_key_value = (key, value) if use_cache else None
""",
        """        if cache is not None:
            assert cache.get_usable_length(length, layer) == mask.shape[-1] - length
            key, value = cache.update(key, value, layer)
""",
    ),
    (
        "reshape(batch, length, -1)\n        return self.o_proj(output), past_key_value",
        "reshape(batch, length, -1)\n        return self.o_proj(output), None",
    ),
    (
        "        past = past_key_values[0][0].shape[2] if past_key_values is not None else 0\n",
        """        legacy = use_cache and not isinstance(past_key_values, Cache)
        if legacy:
            past_key_values = DynamicCache.from_legacy_cache(past_key_values)
        past = past_key_values.get_usable_length(length) if use_cache else 0
""",
    ),
    (
        "if past_key_values:\n            input_ids",
        "if past_key_values.seen_tokens and past_key_values.get_max_length() is None:\n"
        "            input_ids",
    ),
    ("position_ids[:, -1].unsqueeze(-1)", "position_ids[:, -input_ids.shape[1] :]"),
    ("past_key_values[number] if past_key_values is not None else None", "past_key_values"),
    ("position_ids, known, head_mask[number]", "position_ids, known, number, head_mask[number]"),
    ("            if use_cache:\n                next_cache += (made,)\n", ""),
    (
        "        hidden = self.norm(hidden)\n",
        """        hidden = self.norm(hidden)
        next_cache = past_key_values.to_legacy_cache() if legacy else past_key_values
""",
    ),
)


@pytest.mark.parametrize("changes", [(), CACHE_OBJECTS], ids=["tuples", "objects"])
def test_generation_with_its_own_cache(
    run: FakeRun, tmp_path: Path, changes: tuple[tuple[str, str], ...]
) -> None:
    native = written(run, tmp_path)
    changed(tmp_path, *changes)
    loaded = trusted(run, tmp_path)
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones_like(IDS)
    found = loaded.model.generate(IDS, attention_mask=mask, **settings)
    assert found.tolist() == native.generate(IDS, attention_mask=mask, **settings).tolist()
    padded = torch.cat((torch.zeros(1, 3, dtype=torch.long), IDS), dim=1)
    mask = torch.cat((torch.zeros(1, 3, dtype=torch.long), mask), dim=1)
    beside = loaded.model.generate(padded, attention_mask=mask, **settings)
    assert beside[:, 3:].tolist() == found.tolist()


# ---- training ------------------------------------------------------------------------------------


def test_loss_of_the_whole_vocabulary(run: FakeRun, tmp_path: Path) -> None:
    """Its loss reshapes to the vocabulary, which the measuring of its head does not offer."""
    native = written(run, tmp_path)
    loss = CausalLoss(trusted(run, tmp_path).model)
    assert loss.after_head is None
    _, found = loss(loss.model, {"input_ids": IDS}, IDS, None)
    expected = native(input_ids=IDS, labels=IDS).loss * (IDS.numel() - 1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_adapter_leaves_out_head_and_further_heads(run: FakeRun, tmp_path: Path) -> None:
    written(run, tmp_path, num_nextn_predict_layers=1)
    made = apply(run, Lora(Lora.Options(rank=2)), trusted(run, tmp_path))
    adapted = {
        name.partition("base_model.model.")[2].partition(".lora_")[0]
        for name, parameter in made.model.named_parameters()
        if parameter.requires_grad
    }
    leaves = ("self_attn.W_pack", "self_attn.o_proj", "w1", "w2", "w3")
    assert adapted == {f"model.layers.{layer}.{leaf}" for layer in (0, 1) for leaf in leaves}
    assert "no adapter on mtp_layers.0.self_attn.W_pack, " in said(run)
    assert " and 2 more: " in said(run)
    made.model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for p in made.model.parameters() if p.requires_grad)


def test_adapter_on_what_is_not_trained_is_refused(run: FakeRun, tmp_path: Path) -> None:
    written(run, tmp_path, num_nextn_predict_layers=1)
    plugin = Lora(Lora.Options(rank=2, targets=["mtp_layers.0.w1", "o_proj"]))
    with pytest.raises(RecipeError, match=r"mtp_layers\.0\.w1 would get no gradient"):
        apply(run, plugin, trusted(run, tmp_path))
