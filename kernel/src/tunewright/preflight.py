"""Checks before anything is loaded: functions of the entry-point group `tunewright.preflight`.

They are called on rank 0 with the run, and yield a line for each thing that is likely to fail.
"""

from tunewright import events, registry
from tunewright.errors import RecipeError, TunewrightError
from tunewright.run_context import RunContext

_HINT = "tunewright plan RECIPE tells what would make it fit"


def warn(run: RunContext, *, strict: bool) -> None:
    """Emit what the checks say as warnings. strict: raise the first as a RecipeError.

    A check that fails itself blocks nothing.
    """
    if run.rank:
        return
    for point in registry.group("preflight"):
        try:
            lines = list(point.load()(run))
        except Exception as error:
            said = error.problem if isinstance(error, TunewrightError) else str(error)
            message = f"check {point.name} before loading was left out: {' '.join(said.split())}"
            run.emit(events.Notice(message=message[:500], level="info"))
            continue
        for line in lines:
            if strict:
                raise RecipeError(line, hint=_HINT)
            run.emit(events.Notice(message=f"{line} ({_HINT})", level="warning"))
