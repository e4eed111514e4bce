"""The plan that `train` makes by itself, where it trains on a GPU."""

from collections.abc import Iterator

from tunewright.types import RunContext

__all__ = ["check"]

_GIB = 2**30


def check(run: RunContext) -> Iterator[str]:
    """Yield a line for each stage that does not fit in this machine's GPU, by its plan.

    Nothing for tiny models, families that are not built on tunewright-hf, without a GPU, and with
    several processes, of which each would have to plan.
    """
    from tunewright_hf.models.family import HfFamily

    if run.recipe.model == "tiny" or run.world_size > 1:
        return
    # others build models of their own; one that is not named is found by the plan
    if run.recipe.family and not isinstance(run.plugin("family"), HfFamily):
        return
    from tunewright_hf.planning import devices

    device = devices.this_device()
    if device is None:
        return
    from tunewright.check import resolve
    from tunewright_hf.planning.plan import Planner

    resolved = resolve(run.recipe.as_mapping(), combined=False)
    planner = Planner(device, trust_remote_code=run.trust_remote_code)
    for number in range(len(resolved.stages)):
        plan = planner.plan(resolved, number)
        if not plan.fits:
            yield (
                f"stage {number + 1}, {plan.stage}, takes {plan.peak / _GIB:.1f} GiB by its plan, "
                f"and {device.name} has {device.memory / _GIB:.1f} GiB"
            )
