"""Device of a model, and random numbers that leave the global generators unchanged."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tunewright import RunError

__all__ = ["pick_device", "seeded"]


def pick_device(name: str) -> torch.device:
    """auto: this process's GPU, else MPS, else the CPU. Raises RunError if the device does not
    exist."""
    if name != "auto":
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RunError(
                f"there is no device {name}", place="family.device", hint="auto takes what there is"
            )
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the random generators inside the context, and restore them afterwards."""
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
