"""Events of a run, for its loggers. Every event is a frozen dataclass of JSON values.

Events are created on rank 0 only. `metrics` holds numbers. Units, unless the name has one: loss
(nats per trained token), learning_rate (1), grad_norm (1), epoch (1), tokens (count so far, without
padding), tokens_per_second (of the last logging interval), memory (peak bytes: of the accelerator,
or resident on CPU).
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    time: float = field(default_factory=time.time)  # seconds since 1970

    def as_dict(self) -> dict[str, Any]:
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    folder: str
    recipe: dict[str, Any]  # resolved, secrets masked
    versions: dict[str, str]
    resumed_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """One of the six steps of a run begins: load_model, apply_adapter, build_dataset,
    train_stage."""

    step: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something that the user should know; level is info or warning."""

    message: str
    level: str = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    stage: str
    number: int  # 1 is the first
    of: int
    total_steps: int
    first_step: int = 0  # more than 0 when resumed
    trainable_parameters: int = 0
    parameters: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged(Event):
    """A logging step of the trainer."""

    stage: str
    step: int
    total_steps: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled(Event):
    """A completion that the policy has generated while training, with its rewards by name."""

    stage: str
    step: int
    prompt: str
    completion: str
    rewards: dict[str, float]  # reward name → value; `reward` is the weighted sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    stage: str
    step: int
    dataset: str
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(Event):
    stage: str
    step: int
    path: str  # below the run folder


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished(Event):
    stage: str
    steps: int
    path: str  # of the trained weights, below the run folder
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """status: completed, interrupted (can be resumed) or failed."""

    status: str
    folder: str
    error: str | None = None
