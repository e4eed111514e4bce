"""Worker processes that prepare rows: chunks of records go out, Arrow record batches come back, in
order.

Spawned, never forked, so that all systems behave the same; a worker creates its plugins from the
recipe. The pipes connect this process with its own children only: nothing is read from disk.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from tunewright import RunError
from tunewright.errors import TunewrightError
from tunewright.recipe import Section
from tunewright.types import DataRequest, Embedding, RowKind, RunContext
from tunewright_dataset_chat.chunk_processor import ChunkProcessor, ChunkResult, collected_once
from tunewright_dataset_chat.row_processor import RowProcessor
from tunewright_dataset_chat.truncate import Policy

#: arguments of a ChunkProcessor: conversion, schema, items
Task = tuple[Any, Any, Any]
_AHEAD = 2  # chunks per worker that are in preparation or waiting for their turn


@dataclass
class _Given:
    """Initial state of a worker. The tokenizer is sent as an object, because it may have been
    changed after loading."""

    recipe: dict[str, Any]  # its values
    trust_remote_code: bool
    template: Section | None  # with options added from the checkpoint
    tokenizer: Any
    rows: RowKind
    max_length: int
    policy: Policy
    processor: Any
    embedding: Embedding
    tools: list[dict[str, Any]] | None

    def step(self) -> ChunkProcessor:
        from tunewright.check import resolve
        from tunewright.run import Run

        run = Run(resolve(self.recipe), trust_remote_code=self.trust_remote_code)
        if self.template:
            run.use("template", self.template)
        work = RowProcessor.of(
            run,
            self.tokenizer,
            self.rows,
            self.max_length,
            self.policy,
            self.processor,
            self.embedding,
        )
        return ChunkProcessor(run, work, self.tools)


class Workers:
    """Pool of worker processes, started at first use and kept until `close`."""

    def __init__(self, count: int, run: RunContext, request: DataRequest, policy: Policy) -> None:
        self.count = count
        self._run, self._request, self._policy = run, request, policy
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the workers; they import while this process continues."""
        if self._processes:
            return
        recipe, loaded = self._run.recipe.as_mapping() | {"loggers": []}, self._request.loaded
        trust, rows, size = (
            self._run.trust_remote_code,
            self._request.rows,
            self._request.max_length,
        )
        given = _Given(
            recipe,
            trust,
            self._run.template,
            loaded.tokenizer,
            rows,
            size,
            self._policy,
            loaded.processor,
            self._request.embedding,
            self._request.tools,
        )
        context = get_context("spawn")
        for _ in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, given), daemon=True)
            with _no_ctrl_c():
                process.start()
            theirs.close()  # so that when one process ends, the other sees the end of the pipe
            self._processes[ours] = process

    def close(self) -> None:
        for pipe, process in self._processes.items():
            process.terminate()
            process.join()
            pipe.close()
        self._processes = {}

    def map(self, tasks: Iterator[Task], here: ChunkProcessor) -> Iterator[ChunkResult]:
        """Yield the results of the tasks, in order. An error, of a task or of the iterator, is
        raised after all results before it. Few tasks are in flight at a time, so memory is bounded.

        here: processes tasks that cannot be sent, in this process.
        """
        self.start()
        idle, busy = list(self._processes), dict[Connection, int]()
        # results that arrived before their turn
        found: dict[int, ChunkResult | TunewrightError] = {}
        sent = given = 0
        upcoming = _next(tasks)
        try:
            while True:
                while idle and isinstance(upcoming, tuple) and sent - given < _AHEAD * self.count:
                    pipe = idle.pop()
                    try:
                        pipe.send(upcoming)
                        busy[pipe] = sent
                    except RecursionError:  # a record nested too deeply to be sent
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
            process = self._processes[pipe]
            process.join()
            self._run.check_stop()  # the signal may have been for all processes of this run
            raise _ended(process) from error
        finally:
            if busy:  # it will still send a result that nobody reads
                self.close()
        _raised(upcoming)


def _ended(process: BaseProcess) -> RunError:
    problem = f"a worker that prepares data ended with exit code {process.exitcode}"
    hint = (
        "what it said stands above; `dataset: {name: chat, workers: 1}` does "
        "without, and needs less memory"
    )
    return RunError(problem, hint=hint)


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C, not even while they import: it is for
    the process that starts them, which gets it when this ends."""
    if os.name == "nt":
        yield
        return
    resource_tracker.ensure_running()  # which would be started in here, and take the block away
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where `_no_ctrl_c` does nothing
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is one process per core
    step = given.step()
    # the processor collects after each chunk; no collection while waiting for the next
    with collected_once():
        while True:
            try:
                task: Task = pipe.recv()
                pipe.send(_tried(step, task))
            except (EOFError, OSError):  # the process that started this one is gone
                return


def _tried(step: ChunkProcessor, task: Task) -> ChunkResult | TunewrightError:
    try:
        return step(*task)
    except TunewrightError as error:
        return error
