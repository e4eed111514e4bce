"""Private names of accelerate. Tested with accelerate 1.15."""

from typing import Any

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
