"""Optimizers with options for a small model, and networks on which they step."""

import torch
from training_setup import a_run, loaded, lora, model, rows, run_training

from tunewright import registry
from tunewright.types import OptimizerRequest

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


RECIPE = {
    "model": "tiny",
    "family": "qwen",
    "template": "chatml",
    "data": [{"path": "x.jsonl"}],
    "stage": "sft",
    "output": "out",
}
