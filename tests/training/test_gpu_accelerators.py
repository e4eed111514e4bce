"""Accelerators for GPUs: what can be tried without one, up to the first kernel."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
from accelerators_setup import asked, assert_same_weights, go
from training_setup import lora, model
from transformers import BloomConfig

from tunewright import RecipeError, check
from tunewright.run import Run
from tunewright.source import RecipeProblems
from tunewright_flash_attention import choice

BF16 = {"training": {"precision": "bf16"}}

# ---- flash_attention -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "version", "device", "expected", "message"),
    [
        ((), None, "cuda", None, "sdpa, since neither flash-attn-3 nor flash-attn is installed"),
        ((), 2, "cuda", None, "sdpa, since flash-attn is not installed: pip install flash-attn "),
        ((2,), None, "cuda", "flash_attention_2", "FlashAttention 2"),
        ((2, 3), None, "cuda", "flash_attention_3", "FlashAttention 3"),
        ((2, 3), 2, "cuda", "flash_attention_2", "FlashAttention 2"),
        ((2,), 3, "cuda", None, "flash-attn-3 is not installed"),
        ((2, 3), None, "cpu", None, "needs a GPU and the model is on cpu"),
    ],
)
def test_flash_attention_takes_what_is_there(
    monkeypatch, installed, version, device, expected, message
):
    for each in (2, 3):
        monkeypatch.setattr(
            choice, f"is_flash_attn_{each}_available", lambda each=each: each in installed
        )
    found, said = choice.choose(version, device)
    assert found == expected
    assert message in said


def test_without_flash_attention_the_training_is_that_of_sdpa(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "is_flash_attn_2_available", lambda: False)
    plain = go(tmp_path / "plain", **BF16)
    other = go(tmp_path / "other", "flash_attention", **BF16)
    assert other.losses == plain.losses
    assert_same_weights(other, plain)
    assert any("attention: sdpa, since" in notice for notice in other.notices)


def test_transformers_is_asked_for_the_implementation(tmp_path, monkeypatch):
    """Without the package transformers refuses it: the request has reached it."""
    chosen = ("flash_attention_2", "attention: FlashAttention 2")
    monkeypatch.setattr(choice, "choose", lambda *_: chosen)
    run = Run(check.resolve(asked(tmp_path, "flash_attention", **BF16)))
    with pytest.raises(RecipeError, match="attention flash_attention_2 cannot be used"):
        run.load()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"family": {"attention": "eager"}, **BF16}, "family.attention: is eager, and accelerator"),
        ({}, "training.precision: is fp32, in which flash_attention cannot compute"),
    ],
)
def test_flash_attention_objects(tmp_path, more, message):
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(asked(tmp_path, "flash_attention", **more))


@pytest.mark.gpu
def test_flash_attention_trains(tmp_path):
    pytest.importorskip("flash_attn")
    plain = go(tmp_path / "plain", **BF16)
    other = go(tmp_path / "other", "flash_attention", **BF16)
    assert other.losses == pytest.approx(plain.losses, rel=0.02)


# ---- liger ---------------------------------------------------------------------------------------


@pytest.fixture
def kernels():
    pytest.importorskip("liger_kernel")
    from tunewright_liger import kernels

    return kernels


def options(**given):
    from tunewright_liger import Liger

    return Liger.Options(**given)


def test_liger_takes_our_arguments(kernels):
    """Each of them belongs to some model's function, which leaves out those of other models."""
    given = kernels.arguments(options())
    functions = kernels.MODEL_TYPE_TO_APPLY_LIGER_FN.values()
    known = {name for each in functions for name in inspect.signature(each).parameters}
    assert given.keys() <= known
    llama = kernels.MODEL_TYPE_TO_APPLY_LIGER_FN["llama"]
    own = inspect.signature(llama).parameters
    inspect.signature(llama).bind(
        model=None, **{key: value for key, value in given.items() if key in own}
    )


@pytest.mark.parametrize("make", [model, lambda: lora(model()).model], ids=["full", "lora"])
def test_liger_replaces_layers_and_takes_them_back(kernels, make):
    from transformers.models.llama import modeling_llama

    network = make()
    before = [dict(vars(module)) for module in network.modules()]
    names = dict(vars(modeling_llama))
    with kernels.applied(network, options()):
        replaced = {
            type(module).__name__
            for module in network.modules()
            if "liger" in getattr(vars(module).get("forward"), "__module__", "")
        }
        assert replaced == {"LlamaRMSNorm", "LlamaMLP"}
        assert "liger" in modeling_llama.apply_rotary_pos_emb.__module__
        network.train()  # what changes meanwhile stays
    assert network.training
    assert dict(vars(modeling_llama)) == names
    for module, own in zip(network.modules(), before, strict=True):
        assert vars(module) | {"training": None} == own | {"training": None}


def test_liger_leaves_out_what_is_not_asked_for(kernels):
    network = model()
    with kernels.applied(network, options(glu=False, rope=False)):
        assert "forward" not in vars(network.model.layers[0].mlp)
        assert "forward" in vars(network.model.norm)
        modeling = sys.modules["transformers.models.llama.modeling_llama"]
        assert "liger" not in modeling.apply_rotary_pos_emb.__module__


def test_models_without_kernels_are_refused(kernels):
    network = model(BloomConfig(vocab_size=128, hidden_size=32, n_layer=1, n_head=2))
    with (
        pytest.raises(RecipeError, match="liger has no kernels for bloom models"),
        kernels.applied(network, options()),
    ):
        pass


def test_liger_needs_a_gpu(tmp_path, monkeypatch):
    recipe = asked(tmp_path, "liger")
    with pytest.raises(RecipeProblems, match=r"accelerators\.0: liger's kernels are Triton's"):
        check.resolve({**recipe, "family": {**recipe["family"], "device": "cpu"}})
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    check.resolve(recipe)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="liger's kernels are Triton's, and need a GPU"):
        go(tmp_path, "liger")


def test_no_driver_is_found_at_the_check(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(RecipeProblems, match=r"need a GPU \(take liger out"):
        check.resolve(asked(tmp_path, "liger"))
    check.resolve(asked(tmp_path, "liger", family={"device": "cuda"}))  # for another machine


@pytest.mark.gpu
def test_liger_trains(tmp_path):
    pytest.importorskip("liger_kernel")
    plain, other = go(tmp_path / "plain"), go(tmp_path / "other", "liger")
    assert other.losses == pytest.approx(plain.losses, rel=1e-3)
