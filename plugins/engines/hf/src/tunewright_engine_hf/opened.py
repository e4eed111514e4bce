"""The open engine: one thread that alone uses the model, and a scheduler."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from tunewright import RowError, RunError
from tunewright.inference import (
    Busy,
    EngineRequest,
    EngineStats,
    Feature,
    GenerateRequest,
    InferenceEngine,
    Piece,
    PromptInput,
    Scores,
    TooLong,
    Vectors,
)
from tunewright.types import Conversation, Embedding, Message, RunContext
from tunewright_engine_hf.guides import Guides
from tunewright_hf.inference.adapters import add_adapters
from tunewright_hf.inference.answers import Answer, AnswerFactory, AnswersTicket
from tunewright_hf.inference.defaults import sampling_defaults
from tunewright_hf.inference.grammar import is_installed
from tunewright_hf.inference.prompts import PromptEncoder, media_parts
from tunewright_hf.inference.scheduler import Scheduler
from tunewright_hf.media.shapes import MediaKind
from tunewright_hf.models.modules import base_model

_MEDIA: dict[MediaKind, Feature] = {"image": "images", "video": "videos", "audio": "audio"}
_LONGEST = 32_768  # tokens, where neither the request nor the model's config says


class OpenedEngine(InferenceEngine):
    """The trained model of a run. Thread-safe. options: HfEngine.Options."""

    def __init__(self, run: RunContext, request: EngineRequest, options: Any) -> None:
        loaded = run.load_policy(request.head)
        adapters = add_adapters(run, loaded, request.adapters)
        model = loaded.model.eval()
        self.models, self._embedding = (run.recipe.model, *request.adapters), run.embedding
        config = model.config.get_text_config(decoder=True)
        own_length = getattr(config, "max_position_embeddings", None) or _LONGEST
        self.max_length = min(filter(None, (request.max_length, own_length)))
        generation = getattr(
            base_model(model), "generation_config", None
        )  # none with a reward head
        self.defaults = sampling_defaults(generation, request.sampling_defaults)
        self._prompts = PromptEncoder(run, loaded)
        self.features = _features(request, self._prompts.kinds)
        self._answers = AnswerFactory(
            self._prompts,
            self.defaults,
            self.max_length,
            dict(zip(self.models, adapters, strict=True)),
            Guides(self._prompts, config.vocab_size),
        )
        self._scheduler = Scheduler(
            model,
            slots=request.slots,
            prefill_tokens=options.prefill_tokens,
            cache_tokens=request.cache_tokens,
            reuse_tokens=options.reuse_tokens,
            adapters=len(set(adapters)) > 1,
        )
        self._most = request.slots + request.max_waiting
        self._cache_tokens = request.cache_tokens
        self._changed = threading.Condition()
        self._open = 0  # answers that have not ended
        self._prompt_tokens = self._completion_tokens = 0
        self._new: list[Answer] = []
        self._jobs: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._closed = self._stopping = False
        self._thread = threading.Thread(target=self._work, name="tunewright-engine", daemon=True)
        self._thread.start()

    # ---- from any thread -------------------------------------------------------------------------

    def submit(self, request: GenerateRequest, listener: Callable[[Piece], None]) -> AnswersTicket:
        if "generation" not in self.features:
            raise RowError("this model is a reward model: it gives scores, not text", place="model")
        prompt = self.encode(request)
        media = self._prompts.media(request, prompt)
        answers = self._answers.make(request, prompt, media, listener, self._ended)
        self._check_memory(answers)
        with self._changed:
            if self._closed:
                raise RunError("the engine is closed")
            if self._open + len(answers) > self._most:
                raise Busy(f"{self._open} answers run or wait", hint="try again later")
            self._open += len(answers)
            self._prompt_tokens += len(prompt)
            self._new += answers
            self._changed.notify_all()
        return AnswersTicket(self.cancel, answers, len(prompt))

    def encode(self, request: GenerateRequest) -> list[int]:
        ids = self._prompts.encode(request)
        if len(ids) >= self.max_length + (request.max_new_tokens == 0):
            problem = f"has {len(ids)} tokens; with an answer there may be {self.max_length}"
            raise TooLong(problem, place="prompt")
        return ids

    def decode(self, ids: list[int]) -> str:
        return self._prompts.decode(ids)

    def _check_memory(self, answers: list[Answer]) -> None:
        needed = max(len(each.row.prompt) + each.row.max_new_tokens for each in answers)
        if self._cache_tokens is not None and needed > self._cache_tokens:
            problem = f"needs {needed} tokens of cache, and there are {self._cache_tokens}"
            raise RowError(problem, place="max_new_tokens")

    def stats(self) -> EngineStats:
        with self._changed:
            running = self._scheduler.running
            return EngineStats(
                running=running,
                waiting=max(0, self._open - running),
                cache_tokens=self._scheduler.cache_tokens,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                cached_tokens=self._scheduler.reused_tokens,
            )

    def cancel(self, answers: list[Answer]) -> None:
        """End answers at the beginning of the next step."""
        with self._changed:
            for answer in answers:
                self._scheduler.cancel(answer.row)
            self._changed.notify_all()

    def embed(self, inputs: Sequence[PromptInput], model: str | None = None) -> Vectors:
        if any(isinstance(each, Conversation) and any(media_parts(each)) for each in inputs):
            raise RowError("has media, and only text is embedded", place="input")
        prompts = [self._prompts.encode_input(each, add_generation_prompt=False) for each in inputs]
        self._check_lengths(prompts)
        adapter = self._answers.adapter(model)
        how = adapter, self._embedding
        vectors = self._compute(lambda: [self._scheduler.embed(ids, *how) for ids in prompts])
        return Vectors(vectors, [len(ids) for ids in prompts])

    def score(self, inputs: Sequence[PromptInput], model: str | None = None) -> Scores:
        if "scores" not in self.features:
            return super().score(inputs, model)
        inputs = [_paired(each, self._embedding) for each in inputs]
        prompts = [self._prompts.encode_answer(each) for each in inputs]
        self._check_lengths(prompts)
        self._answers.adapter(model)
        pairs = [
            (ids, self._prompts.media_of(asked, ids))
            for asked, ids in zip(inputs, prompts, strict=True)
        ]
        values = self._compute(lambda: [self._scheduler.score(*pair) for pair in pairs])
        return Scores(values, [len(ids) for ids in prompts])

    def _check_lengths(self, prompts: Sequence[Sequence[int]]) -> None:
        if (longest := max(map(len, prompts), default=0)) > self.max_length:
            raise RowError(f"has {longest} tokens, above {self.max_length}", place="input")

    def _compute(self, work: Callable[[], Any]) -> Any:
        """Have the engine's thread do something, and wait for it."""
        job: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise RunError("the engine is closed")
            self._jobs.append((job, work))
            self._changed.notify_all()
        return job.result()

    def close(self, seconds: float = 0.0) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._open or self._stopping, timeout=seconds)
            self._stopping = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ---- the engine's thread ---------------------------------------------------------------------

    @torch.inference_mode()
    def _work(self) -> None:
        more = False
        while True:
            with self._changed:
                if not more:
                    self._changed.wait_for(lambda: self._new or self._jobs or self._stopping)
                new, self._new = self._new, []
                jobs, self._jobs = self._jobs, []
            self._scheduler.add(answer.row for answer in new)
            if self._stopping:
                self._scheduler.abort("cancelled")
                for job, _ in jobs:
                    job.set_exception(RunError("the engine is closed"))
                return
            for job, compute in jobs:
                try:
                    job.set_result(compute())
                except Exception as error:
                    job.set_exception(RunError(f"the engine failed: {error}"))
            more = self._scheduler.step()

    def _ended(self, answer: Answer) -> None:
        with self._changed:
            self._open -= 1
            self._completion_tokens += len(answer.row.tokens)
            self._changed.notify_all()


def _paired(asked: PromptInput, embedding: Embedding) -> PromptInput:
    """For a reranker, the text of a question (the query) with its answer (the document); for other
    models, what was asked. Raises RowError."""
    if not embedding.pair_prompt or not isinstance(asked, Conversation):
        return asked
    match asked.messages:
        case [Message(content=str(query)), Message(content=str(document))]:
            return embedding.pair(query, document)
    raise RowError("a reranker scores a query and a document, both texts", place="input")


def _features(request: EngineRequest, media: Sequence[MediaKind]) -> frozenset[Feature]:
    found: set[Feature] = {"embeddings"}
    if request.head == "score":
        return frozenset(found | {"scores"})
    found |= {"generation", "logprobs", "prompt_logprobs"}
    found |= {_MEDIA[kind] for kind in media}
    if request.adapters:
        found.add("adapters")
    if is_installed():
        found.add("guides")
    return frozenset(found)
