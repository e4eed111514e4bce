"""What is asked of every optimizer."""

import copy
from pathlib import Path
from typing import Any

from tunewright.registry import Entry
from tunewright.types import OptimizerRequest
from tunewright_conformance.bench import Bench, on_bench
from tunewright_conformance.suite import Suite

RATE = 0.02


class TestOptimizer(Suite):
    kinds = ("optimizer",)

    def test_covers_every_parameter(self, entry: Entry, tmp_path: Path) -> None:
        """Every parameter is in exactly one group."""
        model = toy()
        optimizer = make(entry, tmp_path, model)
        held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())

    def test_learning_rates(self, entry: Entry, tmp_path: Path) -> None:
        """The first group has the recipe's learning rate, and a parameter's own factor is kept."""
        model = toy()
        optimizer = make(entry, tmp_path, model, learning_rate_scales={"2.weight": 16.0})
        assert optimizer.param_groups[0]["lr"] == RATE
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        scaled = model.get_parameter("2.weight")
        assert rates.pop(id(scaled)) == 16 * RATE
        assert set(rates.values()) == {RATE}

    def test_falls_on_a_quadratic(self, entry: Entry, tmp_path: Path) -> None:
        """Thirty steps bring every parameter nearer to what minimises a quadratic."""
        model = toy()
        before = distances(model)
        optimizer = make(entry, tmp_path, model)
        for _ in range(30):
            step(model, optimizer)
        after = distances(model)
        assert {name for name in before if after[name] >= before[name]} == set()
        assert sum(after.values()) < 0.7 * sum(before.values())

    def test_weight_decay(self, entry: Entry, tmp_path: Path) -> None:
        """Without a gradient, matrices shrink, and biases and norms stay."""
        import torch

        model = toy()
        before = copy.deepcopy(model.state_dict())
        optimizer = make(entry, tmp_path, model, weight_decay=0.1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                assert torch.equal(parameter, before[name]), f"{name} decays"
            else:
                assert parameter.norm() < before[name].norm(), f"{name} does not decay"

    def test_state_round_trip(self, entry: Entry, tmp_path: Path) -> None:
        """Saved as checkpoints are and loaded again, it makes the same next steps, bit for bit."""
        import torch

        from tunewright_hf.checkpoints.folder import load_state, save_state

        model = toy()
        optimizer = make(entry, tmp_path, model)
        for _ in range(3):
            step(model, optimizer)
        save_state(optimizer.state_dict(), tmp_path, "optimizer")
        twin = copy.deepcopy(model)
        resumed = make(entry, tmp_path, twin)
        resumed.load_state_dict(load_state(tmp_path, "optimizer"))
        for _ in range(3):
            step(model, optimizer)
            step(twin, resumed)
        for name, value in model.state_dict().items():
            assert torch.equal(value, twin.state_dict()[name]), (
                f"{name} goes another way after loading"
            )


def toy() -> Any:
    """Matrices, biases and a norm: 0.weight (16, 8), 0.bias, 1.weight, 1.bias (norm), 2.weight (8,
    16), 2.bias."""
    import torch

    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 8)
    return torch.nn.Sequential(*layers)


def make(entry: Entry, folder: Path, model: Any, weight_decay: float = 0.0, **more: Any) -> Any:
    request = OptimizerRequest(
        list(model.named_parameters()), model, RATE, weight_decay, total_steps=30, **more
    )
    return on_bench(entry).call("build_optimizer", run=Bench(folder), request=request)


def distances(model: Any) -> dict[str, float]:
    """The squared distance of each parameter from 1.5, where nothing starts."""
    return {name: float(((p.detach() - 1.5) ** 2).sum()) for name, p in model.named_parameters()}


def step(model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    sum(((parameter - 1.5) ** 2).sum() for parameter in model.parameters()).backward()
    optimizer.step()
