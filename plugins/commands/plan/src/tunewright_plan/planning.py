"""Plans of all stages of a recipe."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunewright import RecipeError, check
from tunewright.check import Resolved
from tunewright_hf.planning.devices import Device, find_device, this_device
from tunewright_hf.planning.plan import Planner, StagePlan
from tunewright_hf.planning.probe import Probe, probe
from tunewright_hf.planning.suggestions import (
    Suggestion,
    largest_batch,
    largest_length,
    suggestions,
)


@dataclass(frozen=True)
class Asked:
    """Options of the command."""

    device: str | None = None
    device_file: Path | None = None
    stage: int | None = None  # 1 is the first; None: all
    data: bool = True
    utilisation: float = 0.4
    largest: bool = False
    probe: bool = False
    trust_remote_code: bool = False


@dataclass
class Planned:
    """The plan of a stage, and what was found beside it."""

    number: int  # of the stage; 1 is the first
    plan: StagePlan
    suggestions: list[Suggestion] = field(default_factory=list)
    largest_batch: int | None = None  # rows
    largest_length: int | None = None  # tokens per row
    probe: Probe | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        changes = [
            {"why": each.why, "overrides": each.overrides, "plan": each.plan.as_dict()}
            for each in self.suggestions
        ]
        return {
            "number": self.number,
            **self.plan.as_dict(),
            "suggestions": changes,
            "largest_batch": self.largest_batch,
            "largest_length": self.largest_length,
            "probe": asdict(self.probe) if self.probe else None,
        }


def planned(
    recipe: str | Path | dict[str, Any], overrides: Sequence[str], asked: Asked
) -> list[Planned]:
    """Plan a recipe's stages. Raises RecipeError and RunError."""
    # objections are about the machine at hand, which need not be the one that is planned for
    resolved = check.resolve(recipe, overrides, combined=False)
    stages = range(len(resolved.stages))
    if asked.stage is not None:
        if asked.stage > len(stages):
            problem = f"found {asked.stage}, the recipe has {len(stages)}"
            raise RecipeError(problem, place="command line: --stage")
        stages = range(asked.stage - 1, asked.stage)
    planner = Planner(
        _device(asked),
        on_gpu=asked.device != "cpu",
        read_data=asked.data,
        utilisation=asked.utilisation,
        trust_remote_code=asked.trust_remote_code,
    )
    return [_stage(planner, resolved, number, asked) for number in stages]


def _device(asked: Asked) -> Device | None:
    if asked.device == "cpu":
        return None
    return find_device(asked.device, asked.device_file) if asked.device else this_device()


def _stage(planner: Planner, resolved: Resolved, number: int, asked: Asked) -> Planned:
    found = Planned(number + 1, planner.plan(resolved, number))
    if found.plan.fits is False:
        found.suggestions = suggestions(planner, resolved, number)
    if asked.largest:
        if planner.device is None:
            hint = "name one, such as h100-80g"
            raise RecipeError("needs a device", place="command line: --largest", hint=hint)
        found.largest_batch = largest_batch(planner, resolved, number)
        found.largest_length = largest_length(planner, resolved, number)
    if asked.probe:
        workload, _ = planner.workload(resolved, number)
        trusted = asked.trust_remote_code
        found.probe = probe(resolved, number, workload, trust_remote_code=trusted)
        _use(found.probe, found.plan, resolved.stages[number].training)
    return found


def _use(measured: Probe, plan: StagePlan, training: Any) -> None:
    """Replace the estimated times by measured ones."""
    passes = training.gradient_accumulation_steps
    plan.step_seconds = measured.seconds * passes
    if plan.steps is not None and measured.typical_seconds is not None:
        plan.seconds = measured.typical_seconds * passes * plan.steps
