"""Replies from transformers' own generate, streamed."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunewright import Engine, hookimpl
from tunewright.types import GenerateRequest, Reply, RunContext

if TYPE_CHECKING:
    from tunewright_engine_hf.generation import Generator


class HfEngine(Engine):
    """Answers with the model in this process, by transformers' generate.

    Nothing more to install. May be asked from several threads; an answer depends on its request
    alone.
    """

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._generator: Generator | None = None
        self._loading = threading.Lock()

    @hookimpl
    def generate(self, run: RunContext, request: GenerateRequest) -> Iterator[Reply]:
        with self._loading:
            if self._generator is None:
                from tunewright_engine_hf.generation import Generator

                self._generator = Generator(run)
        return self._generator.reply(request)
