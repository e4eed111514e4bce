"""Changes that a training leaves in the process: functions of libraries, environment, settings of
torch."""

import functools
import os
import sys
from typing import Any

WATCHED = ("torch", "transformers", "accelerate", "peft", "trl", "datasets", "tokenizers")


@functools.cache
def _use_the_compiler() -> None:
    """torch's compiler changes functions of torch.fx for good when it is first used."""
    import torch

    torch.compile(lambda number: number + 1, backend="aot_eager")(torch.ones(2, requires_grad=True))
    torch.compiler.reset()


def state() -> dict[str, Any]:
    """The functions and classes of the modules imported so far, methods, and global settings, by
    name."""
    import torch

    _use_the_compiler()
    found: dict[str, Any] = {f"os.environ[{key}]": value for key, value in os.environ.items()}
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if package not in WATCHED and not package.startswith("tunewright"):
            continue
        for key, value in list(vars(module).items()):
            if callable(value):
                found[f"{name}.{key}"] = value
            # not isinstance, which asks deprecated objects of torch for __class__: they warn
            if issubclass(type(value), type) and value.__module__ == name:
                members = list(vars(value).items())
                found |= {f"{name}.{key}.{each}": own for each, own in members if callable(own)}
    return found | {
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "torch.are_deterministic_algorithms_enabled()": (
            torch.are_deterministic_algorithms_enabled()
        ),
    }


def changed(before: dict[str, Any]) -> list[str]:
    """Names of what is not as it was; what has come since does not count, but variables of the
    environment do."""
    after = state()
    new = [key for key in after.keys() - before.keys() if key.startswith("os.environ")]
    other = [key for key, value in before.items() if not _same(value, after.get(key))]
    return sorted(new + other)


def _same(one: Any, other: Any) -> bool:
    return one is other or (not callable(one) and one == other)
