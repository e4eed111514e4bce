"""Private names of accelerate. Tested with accelerate 1.15."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import accelerate.utils.other
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState


def make_accelerator(device: torch.device, mixed_precision: str) -> Any:
    """An Accelerator for this training. mixed_precision: no, bf16 or fp16.

    accelerate keeps the precision of the first training of a process for all others: what it
    remembers is taken away. Its process group stays.
    """
    AcceleratorState._reset_state()
    return Accelerator(cpu=device.type == "cpu", mixed_precision=mixed_precision)


@contextmanager
def without_deepspeed() -> Iterator[None]:
    """While this lasts, accelerate does not import DeepSpeed to see whether a model is its engine
    (transformers' save_pretrained asks): none is, where it was not imported before."""
    other: Any = accelerate.utils.other
    before = other.is_deepspeed_available
    other.is_deepspeed_available = lambda: "deepspeed" in sys.modules
    try:
        yield
    finally:
        other.is_deepspeed_available = before
