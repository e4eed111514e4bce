"""A few tokens are run through every model that is loaded: what is wrong ends the run, and what is
right is left as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, load, said, save, train
from safetensors.torch import load_file, save_file

from tunewright import RecipeError, RunError, registry
from tunewright.types import LoadRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models import forward_check, twins
from tunewright_hf.models.forward_check import check_forward, without_gradient
from tunewright_lora import Lora

FAMILIES = sorted({entry.name for entry in registry.entries("family")})


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in (*model.state_dict().items(),)}


def test_numbers_that_grow_beyond_all_bounds(run: FakeRun, tmp_path: Path) -> None:
    """Each weight is finite, and their product is not."""
    folder = save(load(run), tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(3e38)
    for name in weights.keys() & {"lm_head.weight", "model.embed_tokens.weight"}:
        weights[name] *= 1000
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match="gives numbers that are not finite") as caught:
        load(run, str(folder))
    assert "--trust-remote-code" not in caught.value.hint


def test_padding_that_is_seen(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(run)
    layer = loaded.model.model.layers[0]
    layer.register_forward_hook(lambda _, __, output: output + output.mean(dim=1, keepdim=True))
    with pytest.raises(RunError, match="where padding follows"):
        check_forward(loaded, "here", lambda *_: None)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("twin", ["qwen3", "qwen3_moe", "gpt2"])
def test_rounding_is_no_mistake(run: FakeRun, tmp_path: Path, twin: str, dtype: str) -> None:
    folder = save(load(run, twin=twin), tmp_path)
    assert load(run, str(folder), twin=twin, dtype=dtype).model.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("head", ["causal_lm", "score", "value"])
def test_nothing_is_left_behind(run: FakeRun, head: str) -> None:
    loaded = load(run, head=head)
    modules = {name: dict(vars(module)) for name, module in loaded.model.named_modules()}
    weights, random = state(loaded.model), torch.get_rng_state()
    check_forward(loaded, "here", lambda *_: None)
    linear = [n for n, m in loaded.model.named_modules() if isinstance(m, torch.nn.Linear)]
    assert without_gradient(loaded, linear) == set()
    assert torch.equal(torch.get_rng_state(), random)
    assert state(loaded.model).keys() == weights.keys()
    assert all(torch.equal(state(loaded.model)[name], each) for name, each in weights.items())
    for name, module in loaded.model.named_modules():
        assert vars(module).keys() == modules[name].keys()
        assert all(vars(module)[key] is value for key, value in modules[name].items()), name
        assert not module._forward_hooks
    assert all(p.grad is None and p.requires_grad for p in loaded.model.parameters())


def test_training_is_the_same_with_and_without(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        loaded = apply(run, Lora(Lora.Options(rank=2, dropout=0.5)), load(run))
        train(loaded)
        return state(loaded.model)

    found = trained()
    monkeypatch.setattr(forward_check, "check_forward", lambda *_: None)
    monkeypatch.setattr("tunewright_hf.models.peft_targets.without_gradient", lambda *_: set())
    assert all(torch.equal(each, found[name]) for name, each in trained().items())


def test_weights_that_are_not_there_yet_are_said(run: FakeRun) -> None:
    def on_meta(request: LoadRequest) -> Any:
        loaded = load(FakeRun())
        loaded.model.to("meta")
        return loaded

    load(run, loader=on_meta)
    assert "is not tried on a few tokens: its weights are not loaded yet" in said(run)


def test_adapter_on_what_gets_no_gradient_is_refused(run: FakeRun) -> None:
    loaded = load(run)
    loaded.model.model.layers[1].mlp.register_forward_hook(lambda _, __, output: output.detach())
    loaded.model.model.layers[0].mlp.register_forward_hook(lambda _, __, output: output.detach())
    with pytest.raises(RecipeError, match=r"1\.mlp\.gate_proj would get no gradient"):
        apply(run, Lora(Lora.Options(rank=2, targets=["gate_proj"])), loaded)
    apply(run, Lora(Lora.Options(rank=2)), loaded)
    assert "no adapter on model.layers.0.mlp.down_proj" in said(run)


def test_experts_that_no_token_reaches_are_adapted(run: FakeRun) -> None:
    """Modules that differ in numbers alone count as one."""
    loaded = load(run)
    layers = loaded.model.model.layers
    layers[1].mlp.register_forward_hook(lambda _, __, output: output.detach())
    assert without_gradient(loaded, ["model.layers.1.mlp.up_proj"]) == {
        "model.layers.1.mlp.up_proj"
    }
    both = ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]
    assert without_gradient(loaded, both) == set()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_tables_of_every_twin_are_computed(run: FakeRun, tmp_path: Path, family: str) -> None:
    """transformers puts uninitialised memory in place of buffers that no file holds: each of its
    own classes that families use computes them anew."""
    plugin: Any = registry.load(registry.find("family", family))
    for name in twins.specs(plugin(plugin.Options(), "").package):
        made = plugin(plugin.Options(device="cpu", tiny_variant=name), "")
        native = made.load_model(run, LoadRequest("tiny"))
        folder = save(native, tmp_path / name)
        again = made.load_model(run, LoadRequest(str(folder)))
        fresh = dict(native.model.named_buffers())
        for key, buffer in again.model.named_buffers():
            assert torch.equal(buffer, fresh[key]), f"{name}: {key}"
