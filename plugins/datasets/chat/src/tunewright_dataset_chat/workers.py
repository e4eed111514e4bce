"""Worker processes that prepare rows: chunks of records go out, Arrow record batches come back, in
order.

Spawned, never forked, so that it is the same on every system; a worker makes its plugins from the
recipe. What goes through the pipes is between this process and those that it started: nothing is
read from disk.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from tunewright import RunError
from tunewright.errors import TunewrightError
from tunewright.recipe import Section
from tunewright.types import DataRequest, RowKind
from tunewright_dataset_chat.chunk_processor import ChunkProcessor, ChunkResult, collected_once
from tunewright_dataset_chat.row_processor import RowProcessor
from tunewright_dataset_chat.truncate import Policy

if TYPE_CHECKING:
    from tunewright.run import Run

#: the arguments of a Step: conversion, schema, items
Task = tuple[Any, Any, Any]
_AHEAD = (
    2  # chunks of each worker that are prepared, or being prepared, and whose turn has not come
)


@dataclass
class _Given:
    """What a worker starts from. The tokenizer goes as it is: it may have been changed since it was
    loaded."""

    recipe: dict[str, Any]  # its values
    trust_remote_code: bool
    template: Section | None  # where the recipe names none
    tokenizer: Any
    rows: RowKind
    max_length: int
    policy: Policy

    def step(self) -> ChunkProcessor:
        from tunewright.check import resolve
        from tunewright.run import Run

        run = Run(resolve(self.recipe), trust_remote_code=self.trust_remote_code)
        if self.template:
            run.use("template", self.template)
        return ChunkProcessor(
            run, RowProcessor.of(run, self.tokenizer, self.rows, self.max_length, self.policy)
        )


class Workers:
    """So many processes, started when they are first needed, and kept until `close`."""

    def __init__(self, count: int, run: "Run", request: DataRequest, policy: Policy) -> None:
        self.count = count
        self._run, self._request, self._policy = run, request, policy
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """They import while this process goes on."""
        if self._processes:
            return
        recipe, loaded = self._run.recipe.as_mapping() | {"loggers": []}, self._request.loaded
        template = (
            Section(name=loaded.template) if "template" not in recipe and loaded.template else None
        )
        trust, rows, size = (
            self._run.trust_remote_code,
            self._request.rows,
            self._request.max_length,
        )
        given = _Given(recipe, trust, template, loaded.tokenizer, rows, size, self._policy)
        context = get_context("spawn")
        for _ in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, given), daemon=True)
            process.start()
            theirs.close()  # so that the end of one process is the end of the pipe for the other
            self._processes[ours] = process

    def close(self) -> None:
        for pipe, process in self._processes.items():
            process.terminate()
            process.join()
            pipe.close()
        self._processes = {}

    def map(self, tasks: Iterator[Task], here: ChunkProcessor) -> Iterator[ChunkResult]:
        """What they make of the tasks, in order. An error, of a task or raised by the iterator,
        comes when all before it were given. Few tasks are under way at a time: memory is bounded.

        here: does in this process what cannot be sent to another.
        """
        self.start()
        idle, busy = list(self._processes), dict[Connection, int]()
        found: dict[int, ChunkResult | TunewrightError] = {}  # what came before its turn
        sent = given = 0
        upcoming = _next(tasks)
        try:
            while True:
                while idle and isinstance(upcoming, tuple) and sent - given < _AHEAD * self.count:
                    pipe = idle.pop()
                    try:
                        pipe.send(upcoming)
                        busy[pipe] = sent
                    except RecursionError:  # a record is nested too deeply to be sent
                        idle.append(pipe)
                        found[sent] = _tried(here, upcoming)
                    sent, upcoming = sent + 1, _next(tasks)
                if given in found:
                    yield _raised(found.pop(given))
                    given += 1
                elif busy:
                    ready = wait(list(busy))
                    for pipe in [one for one in busy if one in ready]:
                        found[busy[pipe]] = pipe.recv()
                        del busy[pipe]
                        idle.append(pipe)
                else:
                    break
        except (EOFError, OSError) as error:
            raise self._ended(pipe) from error
        finally:
            if busy:  # and will send what nobody waits for
                self.close()
        _raised(upcoming)

    def _ended(self, pipe: Connection) -> RunError:
        process = self._processes[pipe]
        process.join()
        problem = f"a worker that prepares data ended with exit code {process.exitcode}"
        hint = (
            "what it said stands above; `dataset: {name: chat, workers: 1}` does "
            "without, and needs less memory"
        )
        return RunError(problem, hint=hint)


def _next(tasks: Iterator[Task]) -> Task | TunewrightError | None:
    try:
        return next(tasks, None)
    except TunewrightError as error:
        return error


def _raised(found: Any) -> Any:
    if isinstance(found, TunewrightError):
        raise found
    return found


# ---- in the worker -------------------------------------------------------------------------------


def _work(pipe: Connection, given: _Given) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for each core
    step = given.step()
    with collected_once():  # the step collects after each chunk: none while it waits for the next
        while True:
            try:
                task: Task = pipe.recv()
            except EOFError:  # it is gone, or needs no more
                return
            pipe.send(_tried(step, task))


def _tried(step: ChunkProcessor, task: Task) -> ChunkResult | TunewrightError:
    try:
        return step(*task)
    except TunewrightError as error:
        return error
