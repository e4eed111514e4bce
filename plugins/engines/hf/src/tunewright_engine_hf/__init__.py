"""Replies from transformers' own generate, streamed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunewright import Plugin, hookimpl
from tunewright.types import GenerateRequest, Reply

if TYPE_CHECKING:
    from tunewright.run import Run
    from tunewright_engine_hf.generation import Generator


class HfEngine(Plugin):
    """Answers with the model in this process, by transformers' generate. Nothing more to
    install."""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._generator: Generator | None = None

    @hookimpl
    def generate(self, run: "Run", request: GenerateRequest) -> Iterator[Reply]:
        if self._generator is None:
            from tunewright_engine_hf.generation import Generator

            self._generator = Generator(run)
        return self._generator.reply(request)
