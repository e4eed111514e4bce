"""Private names of accelerate. Tested with accelerate 1.15."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import accelerate.utils.other
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState


def make_accelerator(device: torch.device, mixed_precision: str, timeout: timedelta) -> Any:
    """Create an Accelerator for this training. mixed_precision: no, bf16 or fp16. timeout: of the
    process group, where it opens one.

    accelerate keeps the precision of a process's first training for all later ones; this state is
    reset. The process group is kept.
    """
    AcceleratorState._reset_state()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=mixed_precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
    )


def forget_accelerator() -> None:
    """Undo `make_accelerator` in a process without a process group: the next one may be on another
    device."""
    AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def without_deepspeed() -> Iterator[None]:
    """Keep accelerate from importing DeepSpeed to test whether a model is its engine (as
    transformers' save_pretrained asks): if it was not imported before, no model is."""
    other: Any = accelerate.utils.other
    before = other.is_deepspeed_available
    other.is_deepspeed_available = lambda: "deepspeed" in sys.modules
    try:
        yield
    finally:
        other.is_deepspeed_available = before
