"""Plan a stage: whether it fits on a device, and what it takes."""

from dataclasses import asdict, dataclass, field
from typing import Any

from tunewright import TunewrightError
from tunewright.check import Resolved
from tunewright.run import Run
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.planning.batch import Workload, workload_of_data, workload_of_recipe
from tunewright_hf.planning.devices import Device
from tunewright_hf.planning.measure import Measurement
from tunewright_hf.planning.run import Architecture, measure_stage
from tunewright_hf.planning.shares import divided, on_one_rank
from tunewright_hf.planning.storages import PARTS

__all__ = ["Planner", "StagePlan"]

#: bytes that CUDA's context and its libraries' workspaces take
RUNTIME = int(0.8 * 2**30)
#: share of tensors' bytes that the allocator cannot use, by rounding and fragments
FRAGMENTS = 0.05
#: share of a device's peak that training reaches
UTILISATION = 0.4

_NO_DATA = "rows are taken to have max_length tokens each: "


_DRAWN = (
    "each completion is taken to have max_new_tokens tokens; reward models are not counted; how "
    "long completions take, --probe tells"
)
_GENERATED = "the time that generated answers take is not counted: --probe tells"


@dataclass
class StagePlan:
    """Memory of one rank in bytes, and time in seconds, of a stage. None: not known."""

    stage: str
    parameters: int
    trained_parameters: int
    rows: int  # of the largest batch
    tokens: int  # of the largest batch, padding included
    devices: int
    memory: dict[str, int]  # part → bytes, at the moment when the sum is largest
    peak: int
    device: str | None = None
    capacity: int | None = None
    flops_per_step: int = 0  # of one rank
    step_seconds: float | None = None
    steps: int | None = None
    seconds: float | None = None
    cost: float | None = None  # in the currency of the device's price
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool | None:
        """True if it fits on the device; None without one."""
        return None if self.capacity is None else self.peak <= self.capacity

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self) | {"fits": self.fits}


@dataclass
class Planner:
    """Plans stages of recipes for one sort of device.

    device: None where none is known. on_gpu: False plans for a CPU, without the memory of a GPU's
    runtime. read_data: prepare the data, to know its largest batch and its size; else every row
    has max_length tokens. utilisation: share of the device's peak that training reaches.
    """

    device: Device | None = None
    on_gpu: bool = True
    read_data: bool = True
    utilisation: float = UTILISATION
    trust_remote_code: bool = False
    _measured: dict[str, tuple[Measurement, Architecture]] = field(default_factory=dict, repr=False)
    _workloads: dict[str, tuple[Workload, list[str]]] = field(default_factory=dict, repr=False)

    def plan(
        self, resolved: Resolved, number: int = 0, size: tuple[int, int] | None = None
    ) -> StagePlan:
        """Plan stage `number` (0 is the first) on launch.processes × launch.nodes devices.

        resolved: best without objections (`resolve(…, combined=False)`), which are about the
        machine at hand. size: rows, and tokens of each, in place of the largest batch. Raises
        RecipeError and RunError.
        """
        divides, planned, notes = divided(resolved, on_gpu=self.on_gpu)
        ranks = resolved.recipe.launch.ranks
        workload, more = self.workload(resolved, number, size)
        stage = planned.stages[number]
        found, sizes = self._measure(planned, number, workload)
        draws, generates = stage.choice.plugin.rows == "prompts", stage.choice.make().generates
        width = 4 if stage.training.precision == "fp32" else 2
        most = on_one_rank(found, sizes, divides, ranks, width, generates)
        made = StagePlan(
            stage=stage.choice.entry.name,
            parameters=sizes.parameters,
            trained_parameters=sizes.trained,
            rows=len(workload.rows),
            tokens=found.tokens if draws else workload.tokens,
            devices=ranks,
            memory={part: most.parts.get(part, 0) for part in PARTS},
            peak=most.peak,
            flops_per_step=found.flops * stage.training.gradient_accumulation_steps,
            steps=workload.steps,
            notes=[*notes, *more],
        )
        if sizes.without_media:
            made.notes.append("images, videos and audio are not counted")
        if draws:
            made.notes.append(_DRAWN)
        elif generates:
            made.notes.append(_GENERATED)
        if self.on_gpu:
            made.memory["overhead"] = RUNTIME + int(FRAGMENTS * most.peak)
            made.peak += made.memory["overhead"]
        if self.device is not None:
            made.device, made.capacity = self.device.name, self.device.memory
            if not draws:
                self._add_time(made, workload, stage.training)
        return made

    def workload(
        self, resolved: Resolved, number: int, size: tuple[int, int] | None = None
    ) -> tuple[Workload, list[str]]:
        """The stage's largest batch: from its data, or from the recipe alone, with a note that says
        so."""
        stage, recipe = resolved.stages[number], resolved.recipe
        packing = bool(getattr(stage.choice.options, "packing", False))  # not every stage packs
        ranks, notes = recipe.launch.ranks, [f"{_NO_DATA}no data is read"]
        if self.read_data and size is None:
            key = f"{number} {ranks} {packing} {stage.training} {stage.data} {recipe.model}"
            if key in self._workloads:
                return self._workloads[key]
            run = Run(resolved, trust_remote_code=self.trust_remote_code)
            try:
                asked = run.data_request(run.load(weights="none"), number)
                data = run.call("dataset", "build_dataset", asked)
                if not isinstance(data.train, RowStream):
                    found = workload_of_data(data, stage.training, packing, ranks)
                    return self._workloads.setdefault(key, (found, []))
                notes = [f"{_NO_DATA}the data is streamed"]
            except TunewrightError as error:
                notes = [f"{_NO_DATA}{error}"]
        made = workload_of_recipe(stage.choice.plugin.rows, stage.training, packing, size)
        return made, [] if size else notes

    def _measure(
        self, planned: Resolved, number: int, workload: Workload
    ) -> tuple[Measurement, Architecture]:
        """Measure the stage, unless it was measured: the number of ranks changes nothing."""
        kept = planned.recipe.as_mapping() | {"launch": None, "accelerators": None}
        names = [choice.entry.name for choice in planned.lists.get("accelerator", [])]
        key = f"{number} {kept} {names} {planned.stages[number].training} {workload.lengths}"
        if key not in self._measured:
            self._measured[key] = measure_stage(
                planned,
                number,
                workload,
                on_gpu=self.on_gpu,
                trust_remote_code=self.trust_remote_code,
            )
        return self._measured[key]

    def _add_time(self, made: StagePlan, workload: Workload, training: Any) -> None:
        """Set times and cost, where the device's speed and the amount of data are known."""
        device = self.device
        if device is None or device.flops is None:
            return
        made.step_seconds = made.flops_per_step / (device.flops * self.utilisation)
        if workload.total_tokens is not None:
            passes = training.gradient_accumulation_steps
            per_token = made.step_seconds / passes / workload.tokens
            made.seconds = per_token * workload.total_tokens / made.devices
            if device.price is not None:
                made.cost = made.seconds / 3600 * device.price * made.devices
