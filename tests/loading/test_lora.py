"""LoRA: what is adapted, what is saved, and that merged, reloaded and trained models are equal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, load, logits, save, train, trainable
from pydantic import ValidationError

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_conformance.doubles import FakeRun
from tunewright_lora import Lora

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}


def lora(**options: Any) -> Lora:
    return Lora(Lora.Options(**options))


def adapted(loaded: LoadedModel) -> set[str]:
    """Full names of the modules with LoRA matrices, as in the base model."""
    names = (name for name, _ in loaded.model.named_parameters() if "lora_A" in name)
    return {name.removeprefix("base_model.model.").partition(".lora_A")[0] for name in names}


def save_adapter(loaded: LoadedModel, folder: Path) -> None:
    """Save the adapter like a run does."""
    loaded.model.save_pretrained(folder, save_embedding_layers=False)


def leaves(names: set[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}


# ---- what is adapted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("twin", "expected"),
    [
        ("qwen3", ATTENTION | MLP),
        ("llama2", ATTENTION | MLP),
        ("qwen3_moe", ATTENTION),
        ("qwen2_moe", ATTENTION | MLP),
    ],
)
def test_all_linear(run: FakeRun, twin: str, expected: set[str]) -> None:
    loaded = apply(run, lora(), load(run, twin=twin))
    assert leaves(adapted(loaded)) == expected
    assert all(".lora_" in name for name in trainable(loaded))
    assert loaded.saves == "adapter"
    assert loaded.trained == trainable(loaded)


def test_all_linear_leaves_out_what_the_family_excludes(run: FakeRun) -> None:
    loaded = load(run)
    loaded.model.model.visual = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    loaded.model.model.q_proj = torch.nn.Linear(2, 2)
    loaded.adapter_exclude += ("visual", "layers.0.mlp")
    names = adapted(apply(run, lora(), loaded))
    assert not [name for name in names if "visual" in name or "layers.0.mlp" in name]
    assert "model.layers.1.mlp.up_proj" in names


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"targets": ["q_proj"]}, {"q_proj"}),
        ({"targets": ["q_proj", "lm_head"]}, {"q_proj", "lm_head"}),
        ({"exclude": ["mlp"]}, ATTENTION),
        ({"exclude": ["q_proj", "mlp"]}, ATTENTION - {"q_proj"}),
        ({"targets": ["self_attn.q_proj"]}, {"q_proj"}),
    ],
)
def test_targets(run: FakeRun, options: dict[str, Any], expected: set[str]) -> None:
    assert leaves(adapted(apply(run, lora(**options), load(run, twin="llama3")))) == expected


def test_one_module_of_many(run: FakeRun) -> None:
    loaded = apply(run, lora(targets=["layers.1.self_attn.q_proj"]))
    assert adapted(loaded) == {"model.layers.1.self_attn.q_proj"}


def test_experts_when_asked(run: FakeRun) -> None:
    loaded = apply(run, lora(experts=True), load(run, twin="qwen3_moe"))
    assert any("mlp.experts" in name for name in trainable(loaded))
    assert not [name for name in trainable(loaded) if "mlp.gate." in name]


def test_further_modules(run: FakeRun) -> None:
    loaded = apply(run, lora(modules_to_save=["norm"]))
    whole = {name for name in trainable(loaded) if "lora_" not in name}
    assert whole == {"base_model.model.model.norm.modules_to_save.default.weight"}


def test_new_head_is_trained(run: FakeRun, tmp_path: Path) -> None:
    loaded = apply(run, lora(), load(run, head="score"), head="score")
    assert [name for name in trainable(loaded) if "score" in name]
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if name in trainable(loaded):
                parameter.add_(0.1)
    expected = logits(loaded)
    save_adapter(loaded, tmp_path)
    again = apply(
        run, lora(), load(run, head="score"), head="score", adapter_path=tmp_path, trainable=False
    )
    assert torch.equal(logits(again), expected)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"targets": ["q_projj"]}, "the model has no module 'q_projj'"),
        (
            {"targets": ["lm_head"]},
            "lm_head cannot be adapted: input and output embeddings share their weights",
        ),
        ({"exclude": ["layers"]}, "no module is left to adapt"),
        ({"experts": True}, "the model has no experts"),
        ({"modules_to_save": ["nope"]}, "the model has no module 'nope'"),
        ({"rank": 65_536}, "65536 is too large: this model takes at most 128"),
    ],
)
def test_lora_mistakes(run: FakeRun, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        apply(run, lora(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"rank": 10**18},
        {"alpha": 10**40},
        {"init": "pissa_niter_0"},
        {"dora": True, "init": "pissa"},
        {"experts": True, "dropout": 0.1},
    ],
)
def test_options_that_contradict(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Lora.Options(**options)


# ---- what it does --------------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    {},
    {"dora": True},
    {"rslora": True, "rank": 4, "alpha": 4},
    {"init": "pissa"},
    {"init": "pissa_niter_4", "rslora": True},
    {"init": "olora"},
    {"bias": "all", "modules_to_save": ["norm"]},
    {"init": "pissa", "bias": "lora_only", "modules_to_save": ["norm"]},
    {"targets": ["q_proj", "v_proj"]},
]


@pytest.mark.parametrize(
    ("twin", "options"),
    [
        *(("qwen2", variant) for variant in VARIANTS),
        *(("gpt2", variant) for variant in VARIANTS[:4]),
    ],
    ids=str,
)
def test_trained_saved_loaded_merged(
    run: FakeRun, tmp_path: Path, twin: str, options: dict[str, Any]
) -> None:
    """Begins as the model itself; only adapters move; saved it fits the original model, and merged
    it is the same.

    GPT-2's matrices are Conv1D, the other way round than those of linear layers.
    """
    plugin, original = lora(**options), load(run, twin=twin)
    expected = logits(original)
    loaded = apply(run, plugin, original)
    assert torch.allclose(logits(loaded), expected, atol=1e-5)
    frozen = {name: p.clone() for name, p in loaded.model.named_parameters() if not p.requires_grad}
    train(loaded)
    assert all(
        torch.equal(p, frozen[name])
        for name, p in loaded.model.named_parameters()
        if name in frozen
    )
    learned = logits(loaded)
    assert not torch.allclose(learned, expected, atol=0.1)

    save_adapter(loaded, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again = apply(run, plugin, load(run, twin=twin), adapter_path=tmp_path, trainable=False)
    assert torch.allclose(logits(again), learned, atol=1e-5)
    assert not trainable(again)
    merged = plugin.merge(again)
    assert merged.saves == "model"
    assert torch.allclose(logits(merged), learned, atol=1e-5)
    assert torch.allclose(
        logits(load(run, str(save(merged, tmp_path / "m")), twin=twin)), learned, atol=1e-5
    )


def test_others_can_load_it(run: FakeRun, tmp_path: Path) -> None:
    """A PiSSA adapter is saved as a plain one, for PEFT and all that reads its files."""
    from peft import PeftModel

    loaded = apply(run, lora(init="pissa", rank=4))
    train(loaded)
    save_adapter(loaded, tmp_path)
    theirs = PeftModel.from_pretrained(load(run).model, tmp_path)
    assert theirs.peft_config["default"].r == 8
    assert torch.allclose(logits(LoadedModel(theirs, None)), logits(loaded), atol=1e-5)


def test_going_on_from_an_adapter(run: FakeRun, tmp_path: Path) -> None:
    loaded = apply(run, lora(rank=4))
    train(loaded)
    save_adapter(loaded, tmp_path)
    again = apply(run, lora(rank=16, loraplus_ratio=4), adapter_path=tmp_path)
    assert again.model.peft_config["default"].r == 4
    assert trainable(again) == trainable(loaded)
    assert set(again.learning_rate_scales.values()) == {4}
    before = logits(again)
    train(again)
    assert not torch.equal(logits(again), before)


def test_experts_saved_and_merged(run: FakeRun, tmp_path: Path) -> None:
    from peft import PeftModel

    plugin = lora(experts=True)
    loaded = apply(run, plugin, load(run, twin="qwen3_moe"))
    train(loaded)
    save_adapter(loaded, tmp_path)
    again = apply(run, plugin, load(run, twin="qwen3_moe"), adapter_path=tmp_path, trainable=False)
    assert torch.allclose(logits(again), logits(loaded), atol=1e-5)
    theirs = PeftModel.from_pretrained(load(run, twin="qwen3_moe").model, tmp_path)
    assert torch.allclose(logits(LoadedModel(theirs, None)), logits(loaded), atol=1e-5)
    assert torch.allclose(logits(plugin.merge(again)), logits(loaded), atol=1e-5)


@pytest.mark.parametrize("init", ["default", "pissa", "pissa_niter_4", "olora"])
def test_seed(run: FakeRun, init: str) -> None:
    """A run that is resumed begins from the same adapters and the same rest of the weights."""

    def state(seed: int) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = apply(run, lora(init=init), seed=seed).model.state_dict()
        return found

    before = torch.get_rng_state()
    one, same, other = state(1), state(1), state(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    if init in ("default", "pissa_niter_4"):  # the others are not random at all
        assert any(not torch.equal(one[name], other[name]) for name in one)


def test_loraplus(run: FakeRun) -> None:
    loaded = apply(run, lora(loraplus_ratio=16))
    assert set(loaded.learning_rate_scales) == {
        name for name in trainable(loaded) if "lora_B" in name
    }
    assert set(loaded.learning_rate_scales.values()) == {16}
    assert not apply(run, lora()).learning_rate_scales


def test_adapters_are_float32(run: FakeRun) -> None:
    loaded = apply(run, lora(), load(run, dtype="bfloat16"))
    kinds = {
        parameter.dtype
        for name, parameter in loaded.model.named_parameters()
        if name in trainable(loaded)
    }
    assert kinds == {torch.float32}
    assert loaded.model.get_input_embeddings().weight.dtype == torch.bfloat16


def test_untrained_and_frozen(run: FakeRun) -> None:
    loaded = apply(run, lora(init="pissa"), trainable=False)
    assert not trainable(loaded)
    assert torch.equal(logits(loaded), logits(load(run)))


def test_short_config(run: FakeRun) -> None:
    """Leaf names where they say the same, so that adapter_config.json stays readable."""
    loaded = apply(run, lora(), load(run, options={"tiny_layers": 8}))
    assert set(loaded.model.peft_config["default"].target_modules) == ATTENTION | MLP
