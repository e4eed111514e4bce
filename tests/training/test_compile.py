"""Compiled layers: the same training within rounding, and nothing compiled in evaluation."""

import pytest
import torch
from accelerators_setup import asked, go
from training_setup import SIZE, lora, model
from transformers import LlamaConfig

from tunewright import check
from tunewright.source import RecipeProblems
from tunewright_compile import Compile
from tunewright_compile.compiled import compiled, parts

#: graphs and gradients by torch, without a C++ compiler: seconds instead of minutes
QUICK = {"name": "compile", "backend": "aot_eager"}
LORA = {"name": "lora", "rank": 4}


def assert_close(one, other, tolerance=1e-4):
    assert one.losses == pytest.approx(other.losses, rel=tolerance)
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in one.weights.items():
        apart = float((tensor.float() - other.weights[name].float()).norm())
        assert apart <= tolerance * float(tensor.float().norm()), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "adapter"),
    [({}, "full"), ({}, LORA), ({"per_layer": False}, "full"), ({"dynamic": True}, "full")],
    ids=["full", "lora", "all layers as one", "dynamic"],
)
def test_a_training_is_the_same(tmp_path, options, adapter):
    plain = go(tmp_path / "plain", adapter=adapter)
    assert_close(go(tmp_path / "other", {**QUICK, **options}, adapter=adapter), plain)


CHECKPOINTING = {"name": "activation_checkpointing", "every_n_layers": 1}
DISK = {"name": "activation_offload", "offload_to": "disk"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "listed",
    [[QUICK, CHECKPOINTING], [CHECKPOINTING, QUICK], [DISK, QUICK], ["neftune", QUICK]],
    ids=["around checkpointing", "within checkpointing", "offload", "neftune"],
)
def test_with_other_accelerators(tmp_path, listed):
    settings = {"family": {"tiny_layers": 2}, "training": {"max_steps": 3}}
    plain = go(tmp_path / "plain", *[each for each in listed if each is not QUICK], **settings)
    assert_close(go(tmp_path / "other", *listed, **settings), plain)


@pytest.mark.slow
def test_with_checkpointing_of_all_layers(tmp_path):
    settings = {"family": {"tiny_layers": 2}, "training": {"activation_checkpointing": True}}
    assert_close(go(tmp_path / "other", QUICK, **settings), go(tmp_path / "plain", **settings))


@pytest.mark.slow  # generates and compiles C++
def test_with_generated_code(tmp_path):
    plain = go(tmp_path / "plain", family={"tiny_layers": 2})
    done = go(tmp_path / "other", {"name": "compile", "dynamic": True}, family={"tiny_layers": 2})
    assert_close(done, plain, 1e-3)


@pytest.mark.parametrize("make", [model, lambda: lora(model()).model], ids=["full", "lora"])
def test_layers_are_compiled_in_training_passes_alone(make, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda forward, **how: counting(forward, calls))
    network, ids = make(), torch.arange(3, 33)[None]
    with compiled(parts(network, per_layer=True), Compile.Options()):
        network.train()(input_ids=ids)
        assert len(calls) == 2  # layers
        network.eval()(input_ids=ids)
        with torch.no_grad():
            network.train()(input_ids=ids)
        assert len(calls) == 2
    network(input_ids=ids)
    assert len(calls) == 2
    assert not any("forward" in vars(module) for module in network.modules())


def counting(forward, calls):
    def called(*args, **kwargs):
        calls.append(1)
        return forward(*args, **kwargs)

    return called


def test_all_layers_share_their_code():
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    config = LlamaConfig(**SIZE | {"num_hidden_layers": 12})  # more than dynamo would recompile
    network, ids = model(config).train(), torch.arange(3, 33)[None]
    with compiled(parts(network, per_layer=True), Compile.Options(backend="eager")):
        network(input_ids=ids, use_cache=False)
    assert counters["stats"]["unique_graphs"] == 1


def test_a_missing_compiler_is_found_at_the_check(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *_: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RecipeProblems, match=r"accelerators\.0: finds no C\+\+ compiler \(g\+\+"):
        check.resolve(asked(tmp_path, "compile"))
    check.resolve(asked(tmp_path, QUICK))


def test_a_mode_is_inductor_s(tmp_path):
    with pytest.raises(RecipeProblems, match="mode: is no option of backend aot_eager"):
        check.resolve(asked(tmp_path, {**QUICK, "mode": "max-autotune"}))
