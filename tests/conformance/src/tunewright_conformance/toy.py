"""Toy models for optimizers, and steps on a quadratic that is least where all numbers are 1.5."""

from typing import Any

from tunewright.registry import Entry
from tunewright.types import OptimizerRequest
from tunewright_conformance.bench import on_bench
from tunewright_conformance.doubles import FakeRun


def toy() -> Any:
    """Matrices, biases and a norm: 0.weight (16, 8), 0.bias, 1.weight, 1.bias (norm), 2.weight (8,
    16), 2.bias."""
    return _stack((8, 16), (16, 8))


def wide() -> Any:
    """The same with matrices of 16384 numbers: low ranks and 8-bit states need some room."""
    return _stack((64, 256), (256, 64))


def deep() -> Any:
    """Eight matrices of one size, so that a half of their gradients is several of them."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(8)))


def _stack(first: tuple[int, int], second: tuple[int, int]) -> Any:
    import torch

    torch.manual_seed(0)
    layers = torch.nn.Linear(*first), torch.nn.LayerNorm(first[1]), torch.nn.Linear(*second)
    return torch.nn.Sequential(*layers)


def values(model: Any) -> dict[str, Any]:
    """Copies of the parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before: dict[str, Any], model: Any) -> bool:
    """Whether a parameter is not what it was, to the bit."""
    import torch

    return any(not torch.equal(model.get_parameter(name), before[name]) for name in before)


def distances(model: Any) -> dict[str, float]:
    """The squared distance of each parameter from 1.5, where nothing starts."""
    return {name: float(((p.detach() - 1.5) ** 2).sum()) for name, p in model.named_parameters()}


def backward(model: Any) -> None:
    sum(((parameter - 1.5) ** 2).sum() for parameter in model.parameters()).backward()


def step(model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    backward(model)
    optimizer.step()


def in_training_mode(optimizer: Any) -> Any:
    """The optimizer, switched as the training loop switches it before a step."""
    from tunewright_hf.training.stage_trainer import set_mode

    set_mode(optimizer, training=True)
    return optimizer


def an_optimizer(
    entry: Entry,
    options: dict[str, Any],
    model: Any,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    **more: Any,
) -> Any:
    """An optimizer over all parameters, in training mode."""
    named = list(model.named_parameters())
    request = OptimizerRequest(named, model, learning_rate, weight_decay, total_steps=30, **more)
    caller = on_bench(entry, **options)
    return in_training_mode(caller.call("build_optimizer", run=FakeRun(), request=request))
