"""The learning-rate schedule of a stage."""

import math
from typing import Any

from tunewright.events import Notice
from tunewright.types import RunContext, SchedulerRequest


def build_scheduler(run: RunContext, training: Any, optimizer: Any, total_steps: int) -> Any:
    """Build the torch LRScheduler of the run's scheduler plugin."""
    warmup = training.warmup_steps
    steps = int(warmup) if warmup >= 1 else math.ceil(warmup * total_steps)
    if steps >= total_steps and steps > 0:
        message = (
            f"training.warmup_steps is {steps} and the stage has {total_steps} steps: "
            "the learning rate never reaches its peak before the end"
        )
        run.emit(Notice(message=message, level="warning"))
    request = SchedulerRequest(optimizer, total_steps, steps)
    return run.call("scheduler", "build_scheduler", request)
