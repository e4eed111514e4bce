"""TensorBoard event files."""

from typing import TYPE_CHECKING, Any

from tunewright import Logger, hookimpl
from tunewright.events import Evaluated, Event, Logged, RunFinished, StageFinished, StageStarted
from tunewright.types import RunContext

if TYPE_CHECKING:
    from tunewright_tensorboard.scalars import ScalarWriter


class TensorBoard(Logger):
    """Writes event files below logs/tensorboard/ in the run folder, one TensorBoard run per stage.

    View them with `tensorboard --logdir <run folder>/logs/tensorboard`.
    """

    artifacts = ("logs",)

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._writer: ScalarWriter | None = None

    @hookimpl
    def report(self, run: RunContext, event: Event) -> None:
        match event:
            case StageStarted():
                self._close()
                from tunewright_tensorboard.scalars import ScalarWriter

                # folder names cannot contain a colon on every system
                name = event.stage.rpartition(":")[2]
                folder = run.folder / "logs" / "tensorboard" / f"{event.number}-{name}"
                self._writer = ScalarWriter(folder, event.first_step)
            case Logged() if self._writer:
                self._writer.add(event.step, event.time, event.metrics)
            case Evaluated() if self._writer:
                metrics = {
                    f"eval/{event.dataset}/{name}": value for name, value in event.metrics.items()
                }
                self._writer.add(event.step, event.time, metrics)
            case StageFinished() | RunFinished():
                self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
