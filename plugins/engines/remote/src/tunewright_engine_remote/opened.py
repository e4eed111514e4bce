"""The open engine: a server, and one thread with the event loop of all answers."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from tunewright import RowError, RunError
from tunewright.inference import (
    Busy,
    EngineRequest,
    EngineStats,
    Feature,
    GenerateRequest,
    Guide,
    InferenceEngine,
    Piece,
    TooLong,
)
from tunewright.types import RunContext, StageResult
from tunewright_engine_remote.served import (
    MERGED,
    find_served,
    generation_config,
    served_elsewhere,
)
from tunewright_engine_remote.supervision import (
    Supervisor,
    attached,
    check_arguments,
    environment,
    launched,
)
from tunewright_engine_remote.wire import ServerFailed, ServerLost, generate
from tunewright_hf.inference.answers import Answer, AnswerFactory, AnswersTicket
from tunewright_hf.inference.defaults import sampling_defaults
from tunewright_hf.inference.grammar import grammar_text, is_installed
from tunewright_hf.inference.prompts import PromptEncoder, media_parts

if TYPE_CHECKING:
    from tunewright_engine_remote import RemoteEngine


class OpenedServer(InferenceEngine):
    """A model that another process serves. Thread-safe."""

    def __init__(self, run: RunContext, request: EngineRequest, engine: "RemoteEngine") -> None:
        if request.head == "score":
            raise RunError(f"{engine.title} gives no scores of reward models", hint="engine: hf")
        if request.cache_tokens is not None:
            raise RunError(f"{engine.title} sizes its cache itself", place="cache_tokens")
        self._server, self._title = engine.server(), engine.title
        self._updates, self._number = request.updates, 0  # of updates so far
        self._folder = Path(tempfile.mkdtemp(prefix=f"tunewright-{engine.name}-"))
        try:
            self._open(run, request, engine, self._folder)
        except BaseException:
            self._remove_files(keep_log=True)
            raise

    def _open(
        self, run: RunContext, request: EngineRequest, engine: "RemoteEngine", folder: Path
    ) -> None:
        address = request.address or engine.options.address
        if not address:  # before a model is merged, which may take minutes
            environment(engine)
            check_arguments(engine)
        served = (
            served_elsewhere(run, request.adapters)
            if address
            else find_served(run, engine, request.adapters, folder / MERGED)
        )
        self._prompts = PromptEncoder(run, served.loaded)
        self.models = (run.recipe.model, *request.adapters)
        self.features = _features(self._server.features, bool(request.adapters))
        self.defaults = sampling_defaults(generation_config(served), request.sampling_defaults)
        self._supervisor: Supervisor = (
            attached(engine, address, list(request.adapters))
            if address
            else launched(run, engine, request, served, folder)
        )
        self._base = self._supervisor.base
        self.max_length = min(filter(None, (request.max_length, self._supervisor.max_length)))
        self._answers = AnswerFactory(
            self._prompts,
            self.defaults,
            self.max_length,
            dict(zip(self.models, self._supervisor.names, strict=True)),
            _GuideTexts(),
        )
        self._most, self._slots = request.slots + request.max_waiting, request.slots
        self._changed = threading.Condition()
        self._open_answers = self._prompt_tokens = self._completion_tokens = 0
        self._closed = False
        self._tasks: dict[int, asyncio.Task[Any]] = {}  # by the id of the answer's row
        self._loop, self._stopped = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(
            target=self._run_loop, name="tunewright-engine", daemon=True
        )
        self._thread.start()

    # ---- from any thread -------------------------------------------------------------------------

    def submit(self, request: GenerateRequest, listener: Callable[[Piece], None]) -> AnswersTicket:
        self._supervisor.check()
        prompt = self.encode(request)
        answers = self._answers.make(request, prompt, None, listener, self._ended)
        for answer in answers:
            self._server.check(answer.row)
        with self._changed:
            if self._closed:
                raise RunError("the engine is closed")
            if self._open_answers + len(answers) > self._most:
                raise Busy(f"{self._open_answers} answers run or wait", hint="try again later")
            self._open_answers += len(answers)
            self._prompt_tokens += len(prompt)
            for answer in answers:
                self._loop.call_soon_threadsafe(self._start, answer)
        return AnswersTicket(self.cancel, answers, len(prompt))

    def encode(self, request: GenerateRequest) -> list[int]:
        if medium := next(media_parts(request.conversation), None):
            # a chat route would take it, with the server's own template in place of ours
            problem = f"has {medium.kind}, and {self._title} gets token ids here, without media"
            raise RowError(problem, place="messages", hint="engine: hf takes media")
        ids = self._prompts.encode(request)
        if len(ids) >= self.max_length + (request.max_new_tokens == 0):
            problem = f"has {len(ids)} tokens; with an answer there may be {self.max_length}"
            raise TooLong(problem, place="prompt")
        return ids

    def decode(self, ids: list[int]) -> str:
        return self._prompts.decode(ids)

    def stats(self) -> EngineStats:
        with self._changed:
            running = min(self._open_answers, self._slots)
            return EngineStats(
                running=running,
                waiting=self._open_answers - running,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
            )

    def cancel(self, answers: list[Answer]) -> None:
        """End answers: their connections are closed."""
        with self._changed:
            if not self._loop.is_closed():
                for answer in answers:
                    self._loop.call_soon_threadsafe(self._cancel, answer)

    def close(self, seconds: float = 0.0) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._open_answers, timeout=seconds)
            if self._loop.is_closed():
                return
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._supervisor.close()
        self._remove_files(keep_log=self._supervisor.has_failed)

    def _remove_files(self, *, keep_log: bool) -> None:
        for each in self._folder.iterdir():
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            elif not (keep_log and each.suffix == ".log"):
                each.unlink()
        with suppress(OSError):  # the log is there
            self._folder.rmdir()

    def update(self, trained: StageResult, send: bool = True) -> None:
        if not self._updates:
            super().update(trained)
        self._supervisor.check()
        self._number += 1
        requests, folder = [], str(trained.path.resolve())
        if trained.saves == "adapter":
            name, model = f"update-{self._number}", self.models[-1]
            requests = self._server.adapter_requests(name, folder, self._answers.adapter(model))
            self._answers.rename(model, name)
        else:
            requests = self._server.weights_requests(folder)
        for path, body in requests if send else ():
            self._supervisor.post(path, body)

    # ---- the engine's thread ---------------------------------------------------------------------

    def _run_loop(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        with self._changed:
            self._loop.close()

    async def _serve(self) -> None:
        """Answer until the engine is closed; then cancel what is left."""
        async with self._supervisor.client() as self._client:
            await self._stopped.wait()
            while self._tasks:
                for task in self._tasks.values():
                    task.cancel()
                await asyncio.sleep(0)

    def _start(self, answer: Answer) -> None:
        row = answer.row
        task = self._loop.create_task(generate(self._client, self._server, row, self._base))
        self._tasks[id(row)] = task
        task.add_done_callback(partial(self._finish, answer))

    def _cancel(self, answer: Answer) -> None:
        if (task := self._tasks.get(id(answer.row))) is not None:
            task.cancel()

    def _finish(self, answer: Answer, task: "asyncio.Task[Any]") -> None:
        row = answer.row
        del self._tasks[id(row)]
        if task.cancelled() or row.cancelled:
            row.end("cancelled")
        elif (error := task.exception()) is not None:
            said = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            row.unavailable = isinstance(error, ServerLost | httpx2.TransportError)
            if row.unavailable or isinstance(error, ServerFailed):
                said += self._supervisor.trace()
            row.end("error", said)
        else:
            row.end(task.result())

    def _ended(self, answer: Answer) -> None:
        with self._changed:
            self._open_answers -= 1
            self._completion_tokens += len(answer.row.tokens)
            self._changed.notify_all()


class _GuideTexts:
    """Guides as grammars that a server compiles."""

    def compile(self, guide: Guide) -> str:
        return grammar_text(guide)

    def state(self, guide: Guide, compiled: str) -> str:
        return compiled


def _features(own: frozenset[Feature], adapters: bool) -> frozenset[Feature]:
    found: set[Feature] = set(own)
    if adapters:
        found.add("adapters")
    if is_installed():
        found.add("guides")
    return frozenset(found)
