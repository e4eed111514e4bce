"""A copy of the run folder on an object store, which a distribution keeps through the entry-point
group `tunewright.mirror`: `output: {path: runs/x, mirror: s3://bucket/x}`."""

from typing import TYPE_CHECKING, Any, Protocol

from tunewright import registry
from tunewright.errors import RecipeError

if TYPE_CHECKING:
    from tunewright.events import Event
    from tunewright.run_context import RunContext


class Mirror(Protocol):
    """Copies a run folder, in a thread of its own. On rank 0 only."""

    def pull(self) -> None:
        """Copy the run to an empty run folder; nothing where the mirror has none."""

    def begin(self, state: dict[str, Any], overwrite: bool) -> None:
        """Claim the place for a run. state: content of its run.json. Raises RecipeError where it
        holds another run, which overwrite removes; RunError where it cannot be written."""

    def __call__(self, event: "Event") -> None:
        """Copy what an event says is new."""

    def close(self) -> None:
        """Wait until everything is copied."""


class NoMirror:
    """Mirror of a run that has none."""

    def pull(self) -> None:
        return

    def begin(self, state: dict[str, Any], overwrite: bool) -> None:
        return

    def __call__(self, event: "Event") -> None:
        return

    def close(self) -> None:
        return


def mirror_of(run: "RunContext") -> Mirror:
    """The mirror that the recipe asks for. Raises RecipeError where nothing installed keeps one."""
    if run.recipe.mirror is None or run.rank:
        return NoMirror()
    for point in registry.group("mirror"):
        found: Mirror = point.load()(run)
        return found
    place = run.place("output", "mirror")
    raise RecipeError("no installed distribution keeps a mirror", place=place)
