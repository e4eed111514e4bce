"""Several processes for one run: a launcher starts them, and each runs the same command line.

`start` calls the launcher; the rest is for its workers. What starts one, be it a launcher, srun or
Kubernetes, sets the six variables of `VARIABLES` and runs `tunewright train …`, or calls `work`.
"""

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tunewright import stopper
from tunewright.errors import Problem, RecipeError
from tunewright.launch_failure import tell_ranks
from tunewright.plugin_base import Plugin

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright.launch_section import Launch

__all__ = ["VARIABLES", "LaunchRequest", "Launched", "Launcher", "start", "work"]

#: environment variables that every process of a run has, where there are several
VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
#: variables that change what a worker does; on another host it needs them too
_PASSED = re.compile(
    r"(TUNEWRIGHT|HF|HUGGINGFACE|TRANSFORMERS|TOKENIZERS|OMP|MKL|NCCL|GLOO|TORCH|PYTORCH)_.*"
    r"|PYTHONPATH|CUDA_VISIBLE_DEVICES"
)
_SECRET = re.compile(r"TOKEN$|KEY|SECRET|PASSWORD")


@dataclass(frozen=True)
class LaunchRequest:
    """A launcher is to start a run."""

    argv: list[str]  # arguments of `tunewright`: train, the recipe, overrides and options
    processes: int  # on each node
    nodes: int | str  # number, or for elastic launchers a range "2:4"
    folder: Path  # the run folder, as the recipe has it: it may be relative, and not exist
    #: variables of this process that its workers need; without those that hold secrets
    environment: dict[str, str] = field(default_factory=dict)
    stop_requested: Callable[[], bool] = lambda: False  # Ctrl-C, SIGTERM or SIGHUP
    dry_run: bool = False  # start nothing: Launched.detail is what would be done


@dataclass(frozen=True)
class Launched:
    """Result of a launch."""

    code: int = 0  # exit code: 0, 1 (failed), 2 (bad recipe), 130 (stopped)
    detail: str = ""  # for people: printed as it is, such as the number of a job
    submitted: bool = False  # whether the run was handed on, and may not have begun


class Launcher(Plugin):
    """Kind launcher: starts the processes of a run."""

    #: whether `launch.nodes` may be a range: the run goes on when hosts come and go
    elastic: ClassVar[bool] = False
    #: whether it starts a run of one process too, which otherwise runs where it was called
    starts_one: ClassVar[bool] = True

    def tell_hosts(self, launch: "Launch", problem: str, say: Callable[[str], None]) -> None:
        """Tell the same command on other hosts, which waits for this one, that it has failed here.
        problem: in one line. say: for what takes time. Default: nothing, as one host starts all."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Refuse a range of nodes that this launcher, or a stage's batches, cannot have. Subclasses
        add to it."""
        launch = recipe.recipe.launch
        if launch.least_nodes * launch.processes == launch.ranks:
            return
        if not self.elastic:
            problem = f"is {launch.nodes!r}, and {self.name} takes a fixed number of nodes"
            yield Problem((*self.at, "nodes"), problem, "write a number")
            return
        counts = range(launch.least_nodes * launch.processes, launch.ranks + 1, launch.processes)
        for stage in recipe.stages:
            rows, size = stage.training.rows_per_step, stage.training.per_device_train_batch_size
            if rows is None:
                problem = f"is missing, and launch.nodes is {launch.nodes!r}"
                hint = "rows of a step that stay the same with any number of nodes"
                yield Problem(stage.place("rows_per_step"), problem, hint)
            elif bad := [count for count in counts if rows % (count * size)]:
                problem = f"is {rows}, and {bad[0]} processes with {size} examples each do not give"
                hint = f"set a multiple of {bad[0] * size}"
                yield Problem(stage.place("rows_per_step"), f"{problem} that", hint)


def start(resolved: "Resolved", argv: Sequence[str], *, dry_run: bool = False) -> None:
    """Have the recipe's launcher start the command line `argv`, and wait for it.

    Raises SystemExit with the exit code of a run that failed or was stopped.
    """
    from tunewright.context import Run

    run, launch = Run(resolved), resolved.recipe.launch
    words = [word for word in argv if word != "--dry-run"]
    with stopper.Stopper() as asked:
        request = LaunchRequest(
            words, launch.processes, launch.nodes, run.folder, _environment(), asked, dry_run
        )
        launched: Launched = run.call("launcher", "launch", request)
    if launched.detail:
        print(launched.detail)
    if launched.code:
        raise SystemExit(launched.code)


def is_wanted(resolved: "Resolved") -> bool:
    """Whether a launcher is to start this recipe: a worker has been started already."""
    launcher = resolved.plugin("launcher")
    if launcher is None or "RANK" in os.environ:
        return False
    return bool(launcher.starts_one or resolved.recipe.launch.ranks > 1)


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if _PASSED.fullmatch(name) and not _SECRET.search(name)
    }


# ---- in a worker ---------------------------------------------------------------------------------


def work(
    argv: Sequence[str],
    environment: Mapping[str, str],
    stop_requested: Callable[[], bool] = lambda: False,
) -> int:
    """Run a command line as one process of a run, and return its exit code.

    argv: what comes after `tunewright`. environment: variables to set, among them VARIABLES.
    stop_requested: asked in every step, where no signals arrive. Errors are printed.
    """
    from tunewright.cli import main

    os.environ.update(environment)
    before, sys.argv = sys.argv, ["tunewright", *argv]
    try:
        with stopper.asking(stop_requested):
            main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code:  # this process goes on: nothing else would tell those that wait for it
            with contextlib.suppress(Exception):  # of the network, or as nobody waits
                tell_ranks(store_is_here=True)
        return code
    finally:
        sys.argv = before
    return 0


def check_variables() -> None:
    """Raise RecipeError where some, but not all, of VARIABLES are set."""
    if not {"RANK", "WORLD_SIZE"} & os.environ.keys():
        return
    if missing := [name for name in VARIABLES if not os.environ.get(name)]:
        raise RecipeError(
            f"{', '.join(missing)} is not set, and RANK or WORLD_SIZE is",
            place="environment",
            hint=f"what starts the processes has to set {', '.join(VARIABLES)}",
        )


def end_with_parent() -> None:
    """Kill this process when torchrun, which started it, is gone: nobody would wait for it or pass
    signals on. Started by another program, it does nothing."""
    if "TORCHELASTIC_RUN_ID" in os.environ and hasattr(os, "getppid") and os.name != "nt":
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)  # seconds
    with contextlib.suppress(OSError):
        os.write(2, b"error: torchrun is gone: this process ends too\n")
    os.kill(os.getpid(), signal.SIGKILL)
