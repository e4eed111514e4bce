"""Agreement and exchange between the ranks of a run, which need not see the same run folder.

The kernel has no network of its own: a distribution gives `Ranks` through the entry-point group
`tunewright.ranks`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunewright import registry
from tunewright.errors import RunError

if TYPE_CHECKING:
    from tunewright.run_context import RunContext


class Ranks(Protocol):
    """Agreement and exchange between ranks. All ranks make the same calls, in the same order."""

    def begin(self) -> None:
        """Wait until all ranks are there, and compare recipes and versions. Raises RunError."""

    def share(self, name: str, value: Any) -> Any:
        """Return rank 0's value, of JSON values, on all ranks. name: for messages."""

    def folder(self, path: Path) -> Path:
        """Return a folder with the files of rank 0's `path`: itself where this host sees it, or a
        copy, which exists until the process ends."""


class _Alone:
    """Ranks of a run with one process."""

    def begin(self) -> None:
        return

    def share(self, name: str, value: Any) -> Any:
        return value

    def folder(self, path: Path) -> Path:
        return path


def ranks_of(run: "RunContext") -> Ranks:
    """Connection of this run's ranks. Raises RunError where nothing installed connects them."""
    if run.world_size == 1:
        return _Alone()
    for point in registry.group("ranks"):
        found: Ranks = point.load()(run)
        return found
    raise RunError("no installed distribution connects several processes")
