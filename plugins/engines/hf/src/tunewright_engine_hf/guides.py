"""Guided decoding, by xgrammar."""

import threading
from concurrent.futures import Future
from functools import cached_property
from typing import Any

import torch

from tunewright import RowError
from tunewright.inference import Guide, JsonSchema
from tunewright_hf.inference.grammar import check_installed, grammar, unusable
from tunewright_hf.inference.prompts import PromptEncoder
from tunewright_hf.inference.token_bytes import TokenBytes

_CONTROL = {chr(code) for code in range(0x20)} - {"\n", "\r"}
_CACHE = 64 * 2**20  # bytes of compiled guides
_SECONDS = 10.0  # for a guide to be compiled; some take minutes, such as enums of long texts
_THREADS = 2  # that compile


class Guides:
    """Compiles guides, and keeps the latest. Thread-safe.

    size: width of the model's logits.
    """

    def __init__(self, prompts: PromptEncoder, size: int) -> None:
        self._prompts, self._size = prompts, size
        self._lock, self._free = threading.Lock(), threading.Semaphore(_THREADS)

    def compile(self, guide: Guide) -> Any:
        """Compile a guide, for `state`. Raises RowError if it is invalid, takes too long, or
        xgrammar is missing."""
        check_installed()
        with self._lock:  # the compiler is made once, outside the time limit
            compiler = self._compiler
        job: Future[Any] = Future()
        threading.Thread(target=self._work, args=(compiler, guide, job), daemon=True).start()
        try:
            return job.result(_SECONDS)
        except TimeoutError as error:  # it goes on, since nothing can stop it
            job.cancel()
            raise RowError(f"took over {_SECONDS:g} s to compile", place="guide") from error

    def _work(self, compiler: Any, guide: Guide, job: "Future[Any]") -> None:
        with self._free:
            if not job.set_running_or_notify_cancel():
                return
            try:
                job.set_result(compiler.compile_grammar(grammar(guide)))
            except RowError as error:
                job.set_exception(error)
            except Exception as error:  # xgrammar raises RuntimeError
                job.set_exception(unusable(error))

    def state(self, guide: Guide, compiled: Any) -> "GuideState":
        """The beginning of an answer."""
        is_json = isinstance(guide, JsonSchema) and not _CONTROL & {*guide.before, *guide.after}
        return GuideState(compiled, self._size, self._control_tokens if is_json else None)

    @cached_property
    def _control_tokens(self) -> torch.Tensor:
        """Ids of tokens with control characters, which no JSON has.

        xgrammar 0.2 lets them into strings with a maxLength.
        """
        data, control = TokenBytes(self._prompts.tokenizer), {ord(each) for each in _CONTROL}
        ids = range(min(self._size, self._prompts.size))
        return torch.tensor([i for i in ids if not control.isdisjoint(data.of(i))])

    @cached_property
    def _compiler(self) -> Any:
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(
            self._prompts.tokenizer,
            vocab_size=self._size,
            stop_token_ids=sorted(self._prompts.stop_ids),
        )
        return xgrammar.GrammarCompiler(info, max_threads=1, cache_limit_bytes=_CACHE)


class GuideState:
    """State of one answer. When it is complete, only stop tokens may follow. banned: tokens that
    may not follow besides."""

    def __init__(self, compiled: Any, size: int, banned: torch.Tensor | None) -> None:
        import xgrammar

        self._xgrammar, self._banned = xgrammar, banned
        self._matcher = xgrammar.GrammarMatcher(compiled)
        self._allowed = xgrammar.allocate_token_bitmask(1, size)

    def restrict(self, logits: torch.Tensor) -> None:
        if not self._matcher.is_terminated():
            self._matcher.fill_next_token_bitmask(self._allowed)
            self._xgrammar.apply_token_bitmask_inplace(
                logits[None], self._allowed.to(logits.device)
            )
            if self._banned is not None:
                logits[self._banned.to(logits.device)] = -torch.inf

    def accept(self, token: int) -> None:
        if not self._matcher.is_terminated():
            self._matcher.accept_token(token)
