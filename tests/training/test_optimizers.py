"""Every optimizer in the loop: it resumes bit for bit, holds what it says, has its learning rates,
and is refused where it cannot work."""

import pytest
import torch
from optimizers_setup import ALL, CASES, RECIPE, build, go, plugin, request, step, toy
from test_resume import assert_same_state
from training_setup import a_run, loaded, logs_of, model

from tunewright import RecipeError, check, registry
from tunewright.errors import Stopped
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.training.param_groups import hidden_matrices, learning_rate_scales


def test_every_optimizer_is_tried():
    assert CASES.keys() == {entry.name for entry in registry.entries("optimizer")}


@pytest.mark.parametrize("precision", ["fp32", "pure_bf16"])
@pytest.mark.parametrize("case", ALL)
def test_resumes_bit_for_bit(tmp_path, case, precision):
    settings = {"max_steps": 7, "precision": precision}
    _, _, whole = go(tmp_path / "whole", case, save_steps=7, **settings)
    steps = []

    def stop(run):
        steps.append(1)
        return len(steps) == 4

    with pytest.raises(Stopped):
        go(tmp_path / "parts", case, stop=stop, **settings)
    found = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    _, _, parts = go(tmp_path / "parts", case, checkpoint=found, save_steps=7, **settings)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)
    assert_same_state(*(tmp_path / name / "checkpoints/step-7" for name in ("whole", "parts")))


@pytest.mark.parametrize("case", ALL)
def test_learns(tmp_path, case):
    run, _, _ = go(tmp_path, case, max_steps=25, logging_steps=5)
    losses = [entry["loss"] for entry in logs_of(run)]
    assert losses[-1] < losses[0] - 0.02, losses


def size(value):
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size() if value.ndim else 0
    if isinstance(value, dict):
        return sum(size(each) for each in value.values())
    return sum(size(each) for each in value) if isinstance(value, list | tuple) else 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [case for case in ALL if case != "lorafa"])
def test_state_is_as_large_as_it_says(tmp_path, case, dtype):
    name, options, _ = ALL[case]
    network, run = toy(dtype), a_run(tmp_path)
    made = plugin(name, **options)
    optimizer = made.build_optimizer(run, request(network))
    if hasattr(optimizer, "train"):
        optimizer.train()
    step(network, optimizer)
    state = {key: value for key, value in optimizer.state_dict().items() if key != "param_groups"}
    named = str(dtype).removeprefix("torch.")
    said = sum(made.state_bytes(tuple(each.shape), named) for each in network.parameters())
    assert size(state) == said


# ---- learning rates ------------------------------------------------------------------------------


def test_learning_rates_by_pattern():
    names = ["model.embed_tokens.weight", "layers.0.a", "layers.1.lora_B"]
    scales = learning_rate_scales(names, {"embed": 0.1, "layers": 2.0}, {"layers.1.lora_B": 16.0})
    assert scales == {names[0]: 0.1, names[1]: 2.0, names[2]: 32.0}


def test_the_first_pattern_counts():
    found = learning_rate_scales(["layers.0.a", "layers.1.a"], {r"\.0\.": 0.5, "layers": 2.0}, {})
    assert found == {"layers.0.a": 0.5, "layers.1.a": 2.0}


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(RecipeError, match=r"learning_rate_scales: 'visual' matches no trained"):
        learning_rate_scales(["layers.0.a"], {"visual": 0.1}, {})


def test_learning_rates_reach_the_optimizer(tmp_path):
    made = loaded(model())
    before = made.model.get_input_embeddings().weight.detach().clone()
    go(tmp_path, "adamw", made, learning_rate_scales={"embed_tokens": 0.0})
    assert torch.equal(before, made.model.get_input_embeddings().weight)
    assert not torch.equal(before, made.model.lm_head.weight)


def test_hidden_matrices_leave_out_embeddings_and_head():
    network = model()
    found = {id(each) for each in hidden_matrices(request(network))}
    names = {name for name, each in network.named_parameters() if id(each) in found}
    assert names == {n for n, _ in network.named_parameters() if n.endswith("proj.weight")}


# ---- what cannot work is said before anything loads ----------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lomo"}, "training.max_grad_norm: is 1, and lomo updates inside"),
        (
            {
                "optimizer": "adalomo",
                "training": {"max_grad_norm": 0, "gradient_accumulation_steps": 2},
            },
            "training.gradient_accumulation_steps: is 2, and adalomo updates inside",
        ),
        (
            {"optimizer": {"name": "galore", "layerwise": True}},
            "training.max_grad_norm: is 1, and galore updates inside",
        ),
        (
            {"optimizer": "galore", "accelerators": ["fsdp"]},
            "galore needs whole matrices, and fsdp shards them",
        ),
        (
            {"optimizer": "muon", "accelerators": [{"name": "deepspeed", "stage": 3}]},
            "muon needs whole matrices, and deepspeed shards them",
        ),
        (
            {
                "optimizer": "soap",
                "training": {"precision": "pure_bf16", "stochastic_rounding": True},
            },
            "training.stochastic_rounding: cannot round the updates of soap",
        ),
        ({"optimizer": "prodigy"}, "training.learning_rate: is 5e-05, and prodigy finds the rate"),
        (
            {"optimizer": "schedule_free"},
            "lr_scheduler_type: is cosine, and schedule_free averages",
        ),
        (
            {"optimizer": "lorafa", "adapter": "full"},
            "lorafa trains LoRA's matrices, and adapter full",
        ),
        ({"optimizer": {"name": "adamw", "bits": 4}}, "bits: 4 goes with library: torchao"),
        (
            {"training": {"learning_rate_scales": {"(": 1.0}}},
            "training.learning_rate_scales: '\\(' is no regular expression",
        ),
    ],
)
def test_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        check.resolve({**RECIPE, **changes})


def test_a_rank_that_projects_nothing_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match=r"optimizer\.rank: is 128, and no trained matrix"):
        build(tmp_path, "galore", rank=128)(toy())


@pytest.mark.parametrize("options", [{"bits": 8}, {"bits": 4}, {"bits": 8, "fp8": True}], ids=str)
def test_torchao_states_resume(tmp_path, options):
    pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")
    from tunewright_hf.checkpoints.state_codec import load_state, save_state

    make = build(tmp_path, "adamw", library="torchao", **options)
    optimizer = make(network := toy())
    for _ in range(3):
        step(network, optimizer)
    save_state(optimizer.state_dict(), tmp_path, "optimizer")
    twin = toy()
    twin.load_state_dict(network.state_dict())
    resumed = make(twin)
    resumed.load_state_dict(load_state(tmp_path, "optimizer"))
    for _ in range(3):
        step(network, optimizer)
        step(twin, resumed)
    assert all(map(torch.equal, network.parameters(), twin.parameters()))
