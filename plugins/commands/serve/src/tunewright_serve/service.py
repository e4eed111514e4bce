"""State that all routes share: the engine, the template, the names of models, and limits."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from tunewright import RowError
from tunewright.errors import did_you_mean
from tunewright.inference import Feature, GenerateRequest, InferenceEngine, TooLong
from tunewright_hf.templates.info import TemplateInfo
from tunewright_serve.deadlines import Deadlines
from tunewright_serve.errors import ApiError
from tunewright_serve.fetching import with_media
from tunewright_serve.metrics import Metrics
from tunewright_serve.waking import Waker

__all__ = ["Limits", "Service"]

_SHORT = 2000  # characters, or token ids
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    requests: int = 288  # that are open at once: slots and queue
    body: int = 16 * 2**20  # bytes
    depth: int = 128  # of brackets in JSON
    body_seconds: float = 30  # for a body to arrive
    answer_seconds: float = 600  # for an answer to be generated
    write_seconds: float = 60  # for a client to read what was sent
    quiet_seconds: float = 15  # after which a stream gets a comment, to keep it open


@dataclass(slots=True)
class Service:
    """names: public name → name in the engine; the first is the model, the others its adapters.
    media_hosts: from which media may be fetched. has_quick_prompts: the engine renders and encodes
    in this process, and no slower than the prompt is long."""

    engine: InferenceEngine
    info: TemplateInfo
    names: dict[str, str]
    limits: Limits = field(default_factory=Limits)
    media_hosts: frozenset[str] = frozenset()
    has_quick_prompts: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    open_requests: int = 0
    draining: bool = False
    waker: Waker = field(default_factory=Waker)
    deadlines: Deadlines = field(init=False)
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="prompts")
    )

    def __post_init__(self) -> None:
        self.deadlines = Deadlines(self.limits.answer_seconds)

    def in_pool(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> "asyncio.Future[T]":
        """Render and tokenise in one of two threads."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def counted(self) -> "_Counted":
        """Count a request as open, in a block. Raises ApiError (429) if too many are."""
        return _Counted(self)

    def model(self, name: str | None) -> tuple[str, str]:
        """Public name and name in the engine. None: the first. Raises ApiError (404)."""
        public = next(iter(self.names)) if name is None else name
        if public not in self.names:
            hint = did_you_mean(public, self.names)
            problem = f"there is no model {public!r:.200} here ({hint})"
            raise ApiError(problem, status=404, param="model", code="model_not_found")
        return public, self.names[public]

    def require(self, feature: Feature, param: str, purpose: str) -> None:
        """Raise ApiError if the engine does not have a feature."""
        if feature not in self.engine.features:
            problem = f"{param}: this engine does not support {purpose}"
            raise ApiError(problem, param=param, code="unsupported")

    async def encode(self, request: GenerateRequest) -> list[int]:
        """Token ids of a prompt, whose media are fetched first. Raises ApiError if it leaves no
        room for the answer."""
        if self.media_hosts:
            await asyncio.to_thread(with_media, request.conversation, self.media_hosts)
        try:
            if self.has_quick_prompts and _is_short(request):  # quicker than to change threads
                ids = self.engine.encode(request)
            else:
                ids = await self.in_pool(self.engine.encode, request)
        except RowError as error:
            param = "messages" if request.prompt is None else "prompt"
            code = "context_length_exceeded" if isinstance(error, TooLong) else None
            raise ApiError(str(error), param=param, code=code) from error
        wanted, limit = request.max_new_tokens, self.engine.max_length
        least = 1 if wanted is None else wanted
        if len(ids) + least > limit:
            raise ApiError(
                f"the prompt has {len(ids)} tokens, and {least} are to be generated: together more "
                f"than the {limit} of this model",
                param="messages" if request.prompt is None else "prompt",
                code="context_length_exceeded",
            )
        return ids

    def opens_thinking(self, ids: list[int]) -> bool:
        """Whether a prompt ends with the marker that opens the thinking."""
        if self.info.thinking is None:
            return False
        return self.engine.decode(ids[-16:]).rstrip().endswith(self.info.thinking[0])

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Counted:
    """A block, since one of contextlib would cost five times as much."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __enter__(self) -> None:
        service = self._service
        if service.open_requests >= service.limits.requests:
            raise ApiError(
                f"{service.open_requests} requests are open, as many as may be",
                status=429,
                code="queue_full",
                headers={"Retry-After": "1"},
            )
        service.waker.attach()
        service.open_requests += 1

    def __exit__(self, *error: object) -> None:
        self._service.open_requests -= 1


def _is_short(request: GenerateRequest) -> bool:
    """Whether a prompt is rendered and encoded within about a millisecond."""
    if request.prompt is not None:
        return len(request.prompt) <= _SHORT
    asked = request.conversation
    if asked.tools or asked.variables:
        return False
    size = 0
    for message in asked.messages:
        if not isinstance(message.content, str) or message.tool_calls:
            return False
        size += len(message.content) + len(message.reasoning or "")
    return size <= _SHORT
