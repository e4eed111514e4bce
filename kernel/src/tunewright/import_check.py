"""Import checks of plugins, each in a separate process, so that none can stop or block the
others."""

import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection

from tunewright import registry
from tunewright.errors import TunewrightError
from tunewright.registry import Entry


def imported(entries: Iterable[Entry], timeout: float) -> Iterator[tuple[Entry, str]]:
    """Yield each entry with its import error, empty if there is none. timeout: seconds."""
    # a forked process already has the kernel in memory; without fork, start a new interpreter
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    for entry in entries:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_import, args=(entry, there), daemon=True)  # type: ignore[attr-defined]
        process.start()
        there.close()
        said = ""
        if not here.poll(timeout):
            said = f"{entry} is broken: its import takes longer than {timeout:g} seconds"
        else:
            try:
                said = str(here.recv_bytes(), "utf-8", "replace")
            except EOFError:
                process.join()
                said = f"{entry} is broken: its import ends the process (code {process.exitcode})"
        process.kill()
        process.join()
        here.close()
        yield entry, said


def _import(entry: Entry, answer: Connection) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        registry.load(registry.find(entry.kind, entry.qualified))
        said = ""
    except TunewrightError as error:
        said = str(error)
    except BaseException as error:
        said = f"{entry} is broken: {type(error).__name__}: {error}"
    answer.send_bytes(said.encode("utf-8", "replace"))
    os._exit(0)
