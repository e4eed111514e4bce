"""Tables of plans, for people."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunewright.terminal import printable
from tunewright_hf.planning.plan import StagePlan
from tunewright_plan.planning import Planned

_GIB = 2**30


def show(found: Planned) -> None:
    """Print the plan of a stage."""
    console, plan = Console(), found.plan
    many = f"{plan.devices} × " if plan.devices > 1 else ""
    on = f" on {many}{plan.device}" if plan.device else f" on {many}a device" if many else ""
    console.print(Text(printable(f"Stage {found.number}, {plan.stage}{on}"), "bold"))
    table = Table("", "", box=None, show_header=False)
    table.columns[1].justify = "right"
    share = 100 * plan.trained_parameters / plan.parameters
    lines = [
        ("parameters", f"{plan.parameters:,}"),
        ("trained", f"{plan.trained_parameters:,} ({share:.2f} %)"),
        ("largest batch", f"{plan.rows:,} rows, {plan.tokens:,} tokens"),
        *((f"memory: {part}", gib(size)) for part, size in plan.memory.items() if size),
        ("memory per device at the peak", gib(plan.peak)),
        *_capacity(plan),
        *_time(plan),
        *_more(found),
    ]
    for name, value in lines:
        table.add_row(name, value)
    console.print(table)
    for note in plan.notes:
        console.print(Text(printable(f"  note: {note}"), "cyan"), soft_wrap=True)
    for each in found.suggestions:
        fits = "fits" if each.plan.fits else "does not fit yet"
        console.print(f"  {each.why}: {gib(each.plan.peak)}, {fits}", soft_wrap=True)
        console.print(Text(printable(f"    {' '.join(map(_quoted, each.overrides))}"), "green"))


def gib(size: float) -> str:
    """Bytes as GiB, or as MiB below one."""
    return f"{size / _GIB:,.1f} GiB" if size >= _GIB else f"{size / 2**20:,.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that gives at least two of it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{1000 * seconds:,.0f} ms"


def _capacity(plan: StagePlan) -> list[tuple[str, str]]:
    if plan.capacity is None:
        return []
    over = plan.peak - plan.capacity
    said = f"no, {gib(over)} too much" if over > 0 else f"yes, {gib(-over)} free"
    return [(f"fits in {gib(plan.capacity)}", said)]


def _time(plan: StagePlan) -> list[tuple[str, str]]:
    lines = [("floating-point operations per step", f"{plan.flops_per_step:.3g}")]
    if plan.step_seconds is not None:
        lines.append(("largest step", duration(plan.step_seconds)))
    if plan.steps is not None:
        lines.append(("steps", f"{plan.steps:,}"))
    if plan.seconds is not None:
        lines.append(("all steps", duration(plan.seconds)))
    if plan.cost is not None:
        lines.append(("price of all steps", f"{plan.cost:,.2f}"))
    return lines


def _more(found: Planned) -> list[tuple[str, str]]:
    lines = []
    if found.largest_batch is not None:
        lines.append(("most rows of this length that fit", f"{found.largest_batch:,}"))
    if found.largest_length is not None:
        lines.append(("longest rows that fit", f"{found.largest_length:,} tokens"))
    if found.probe is not None and found.probe.peak is not None:
        lines.append(("measured peak", gib(found.probe.peak)))
    return lines


def _quoted(override: str) -> str:
    return f"'{override}'" if set(override) & set(" {}[],") else override
