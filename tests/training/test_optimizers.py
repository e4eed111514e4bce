"""Every optimizer in the loop: it resumes bit for bit, holds what it says, and follows its rule."""

import pytest
import torch
from test_resume import assert_same_state
from training_setup import a_run, loaded, logs_of, lora, model, rows, run_training

from tunewright import RecipeError, check, registry
from tunewright.errors import Stopped
from tunewright.types import OptimizerRequest
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.training.param_groups import hidden_matrices, learning_rate_scales

LOW_RANK = {"rank": 4, "update_proj_gap": 3}
RATIO = {"mode": "ratio", "update_ratio": 0.2, "switch_interval": 3}
#: name → options for a small model, and fields of `training`
CASES = {
    "adafactor": ({}, {}),
    "adalomo": ({}, {"max_grad_norm": 0}),
    "adam_mini": ({}, {}),
    "adamw": ({}, {}),
    "apollo": (LOW_RANK, {}),
    "badam": ({"switch_interval": 2}, {}),
    "came": ({}, {}),
    "galore": (LOW_RANK, {}),
    "lion": ({}, {}),
    "lomo": ({}, {"max_grad_norm": 0}),
    "lorafa": ({}, {}),
    "muon": ({}, {}),
    "prodigy": ({}, {"learning_rate": 1.0}),
    "schedule_free": ({}, {"lr_scheduler_type": "constant"}),
    "sgd": ({}, {}),
    "soap": ({"precondition_frequency": 2}, {}),
    "stable_adamw": ({}, {}),
}
VARIANTS = {
    "adamw in 8 bits": ("adamw", {"bits": 8}, {}),
    "badam ratio": ("badam", RATIO, {}),
    "badam ratio scattered": ("badam", {**RATIO, "mask_mode": "scatter"}, {}),
    "galore layerwise": ("galore", {**LOW_RANK, "layerwise": True}, {"max_grad_norm": 0}),
    "galore in 8 bits": ("galore", {**LOW_RANK, "bits": 8}, {}),
    "apollo mini": ("apollo", {"rank": 1, "scale_type": "tensor", "update_proj_gap": 3}, {}),
}
ALL = {**{name: (name, *case) for name, case in CASES.items()}, **VARIANTS}


def plugin(name, **options):
    found = registry.load(registry.find("optimizer", name))
    return found(found.Options(**options), name)


def go(folder, case, made=None, **more):
    name, options, training = ALL[case]
    run = a_run(folder, plugins={"optimizer": plugin(name, **options)})
    made = made or (lora(model()) if name == "lorafa" else loaded(model(dropout=0.1)))
    _, result = run_training(folder, made, rows(30), run=run, **{**training, **more})
    return run, result, made.model


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


def request(network, **more):
    return OptimizerRequest(list(network.named_parameters()), network, 0.01, 0.1, **more)


def toy(dtype=torch.float32):
    """Matrices whose states bitsandbytes quantizes, and small ones."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 96), torch.nn.LayerNorm(96), torch.nn.Linear(96, 64)
    return torch.nn.Sequential(*layers).to(dtype)


def step(network, optimizer):
    optimizer.zero_grad()
    sum(((each - 1.5) ** 2).sum() for each in network.parameters()).backward()
    optimizer.step()


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


# ---- each by its rule ----------------------------------------------------------------------------


def both(one, other, steps=5, tolerance=1e-6):
    """Step two copies of a network by two optimizers: the weights stay together."""
    networks = toy(), toy()
    made = one(networks[0]), other(networks[1])
    for _ in range(steps):
        for network, optimizer in zip(networks, made, strict=True):
            step(network, optimizer)
    ends = zip(networks[0].parameters(), toy().parameters(), strict=True)
    moved = [(a - b).abs().max() for a, b in ends]
    assert min(moved) > 1e-5
    for a, b in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def build(tmp_path, name, **options):
    run = a_run(tmp_path)
    return lambda network: plugin(name, **options).build_optimizer(run, request(network))


def plain(network, **settings):
    """Groups as every optimizer has them."""
    matrices = [each for each in network.parameters() if each.ndim > 1]
    others = [each for each in network.parameters() if each.ndim == 1]
    decayed = {"params": matrices, "lr": 0.01, "weight_decay": 0.1, **settings}
    return [decayed, {"params": others, "lr": 0.01, "weight_decay": 0.0}]


def test_lomo_is_sgd(tmp_path):
    both(build(tmp_path, "lomo"), lambda network: torch.optim.SGD(plain(network)))


def test_adalomo_is_adafactor_relative_to_the_parameter(tmp_path):
    adafactor = build(tmp_path, "adafactor", scale_parameter=True)
    both(build(tmp_path, "adalomo"), adafactor)


def test_galore_is_that_of_pytorch_optimizer(tmp_path):
    from pytorch_optimizer import GaLore

    def reference(network):
        low = {"rank": 4, "update_proj_gap": 200, "scale": 0.25, "projection_type": "std"}
        # eps: theirs stands beside second moments that are not yet corrected
        return GaLore(plain(network, **low), eps=1e-12)

    ours = build(tmp_path, "galore", rank=4, update_proj_gap=200, eps=1e-12)
    both(ours, reference, tolerance=1e-4)


def test_galore_of_full_rank_is_adamw_in_other_axes(tmp_path):
    """Layerwise and at once are the same."""
    at_once = build(tmp_path, "galore", **LOW_RANK)
    both(build(tmp_path, "galore", **LOW_RANK, layerwise=True), at_once)


@pytest.mark.parametrize("scale_type", ["channel", "tensor"])
def test_apollo_by_hand(tmp_path, scale_type):
    """Adam in the subspace gives the size of each channel's update, or of the matrix's."""
    network, steps = toy(), 4
    make = build(tmp_path, "apollo", rank=4, scale_type=scale_type, scale=4.0)
    optimizer, matrix = make(network), network[0].weight
    expected, first, second, before = matrix.detach().clone(), 0.0, 0.0, None
    for number in range(1, steps + 1):
        gradient = 2 * (expected - 1.5)
        step(network, optimizer)
        projected = gradient @ optimizer.bases[matrix].T  # (96, 64) @ (64, 4)
        first = 0.9 * first + 0.1 * projected
        second = 0.999 * second + 0.001 * projected**2
        adapted = first / (second.sqrt() + 1e-12)
        dims = (1,) if scale_type == "channel" else (0, 1)
        update = gradient * adapted.norm(dim=dims, keepdim=True)
        update = update / projected.norm(dim=dims, keepdim=True)
        if before is not None and update.norm() > 1.01 * before:
            update = update * 1.01 * before / update.norm()
        before = update.norm()
        rate = 0.01 * (1 - 0.999**number) ** 0.5 / (1 - 0.9**number)
        expected = expected * (1 - 0.01 * 0.1) - 2 * rate * update  # 2: the root of the scale
    torch.testing.assert_close(matrix.detach(), expected, atol=1e-3, rtol=1e-4)


def test_apollo_projects_alike_on_all_ranks(tmp_path):
    torch.manual_seed(1)
    first = build(tmp_path, "apollo", **LOW_RANK)(network := toy())
    step(network, first)
    torch.manual_seed(2)
    second = build(tmp_path, "apollo", **LOW_RANK)(network := toy())
    step(network, second)
    for one, other in zip(first.bases.values(), second.bases.values(), strict=True):
        assert torch.equal(one, other)


def test_muon_takes_hidden_matrices_and_adamw_the_rest(tmp_path):
    network = model()
    optimizer = build(tmp_path, "muon")(network)
    names = {id(each): name for name, each in network.named_parameters()}
    by_muon = {
        names[id(each)]
        for group in optimizer.parts["muon"].param_groups
        for each in group["params"]
    }
    assert by_muon == {n for n in names.values() if n.endswith("proj.weight")}
    assert set(names.values()) - by_muon == {
        names[id(each)]
        for group in optimizer.parts["adamw"].param_groups
        for each in group["params"]
    }


def test_adam_mini_by_hand(tmp_path):
    """One second moment per row of a matrix, one per vector; AdamW for the rest of it."""
    network = toy()
    before = [each.detach().clone() for each in network.parameters()]
    optimizer = build(tmp_path, "adam_mini")(network)
    step(network, optimizer)
    for each, start in zip(network.parameters(), before, strict=True):
        gradient = 2 * (start - 1.5)
        dims = (1,) if each.ndim == 2 else (0,)
        scale = gradient.square().mean(dim=dims, keepdim=True).sqrt() + 1e-8
        decayed = start * (1 - 0.01 * (0.1 if each.ndim == 2 else 0))
        torch.testing.assert_close(each, decayed - 0.01 * gradient / scale)


def test_adam_mini_has_a_second_moment_per_head(tmp_path):
    network = model()  # 4 heads and 2 of keys, of 8 rows each
    optimizer = build(tmp_path, "adam_mini")(network)
    network(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    optimizer.step()
    sizes = {
        name.split(".")[-2]: len(optimizer.state[each]["exp_avg_sq"])
        for name, each in network.named_parameters()
        if "layers.0" in name
    }
    assert (sizes["q_proj"], sizes["k_proj"], sizes["v_proj"], sizes["o_proj"]) == (4, 2, 16, 32)


def test_lorafa_freezes_a(tmp_path):
    made = lora(model())
    before = {name: each.detach().clone() for name, each in made.model.named_parameters()}
    go(tmp_path, "lorafa", made)
    changed = {
        name for name, each in made.model.named_parameters() if not torch.equal(each, before[name])
    }
    assert changed == {name for name in before if "lora_B" in name}


def test_a_layerwise_optimizer_never_holds_all_gradients(tmp_path):
    network = model()
    optimizer = build(tmp_path, "lomo")(network)
    most = 0

    def look(parameter):
        nonlocal most
        most = max(most, sum(each.grad is not None for each in network.parameters()))

    for each in network.parameters():
        each.register_post_accumulate_grad_hook(look)
    before = network.lm_head.weight.detach().clone()
    network(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    assert not torch.equal(before, network.lm_head.weight)
    assert most <= 1
    assert optimizer.state_dict()["each"]


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

RECIPE = {
    "model": "tiny",
    "family": "qwen",
    "template": "chatml",
    "data": [{"path": "x.jsonl"}],
    "stage": "sft",
    "output": "out",
}


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
