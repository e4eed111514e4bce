"""The run's model for the harness, with the run's chat template. Answers are kept in a file."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM

from tunewright import RowError
from tunewright.types import (
    Conversation,
    LoadedModel,
    Message,
    RunContext,
    TemplateRequest,
)
from tunewright_hf.predictions.lines import ResultLines

_CHUNK = 64  # batches between two progress reports


class HarnessModel(HFLM):  # type: ignore[misc]  # the library has no types
    """A loaded model. lines: answers that are there, by the number of their request."""

    def __init__(
        self,
        run: RunContext,
        loaded: LoadedModel,
        lines: ResultLines,
        progress: Callable[[str, int, int], None],
        *,
        batch_size: int,
        max_length: int | None,
    ) -> None:
        super().__init__(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            batch_size=batch_size,
            max_length=max_length,
        )
        self._run, self._lines, self._progress = run, lines, progress
        self._special = dict(loaded.tokenizer.special_tokens_map)
        self._asked = 0  # requests so far
        self._known = {row["row"]: row for row in lines.rows()}

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render messages with the run's template. Where it takes no system message, that is left
        out, as the harness does."""
        history, beginning = chat_history, ""
        if not add_generation_prompt:  # the last message is the beginning of the answer
            *history, last = chat_history
            beginning = last["content"]
        try:
            return self._render(history) + beginning
        except RowError:
            others = [each for each in history if each["role"] != "system"]
            if len(others) == len(history):
                raise
            return self._render(others) + beginning

    def _render(self, history: Sequence[dict[str, Any]]) -> str:
        conversation = Conversation([Message(each["role"], each["content"]) for each in history])
        request = TemplateRequest(conversation, True, self._special, self.tokenizer)
        text: str = self._run.call("template", "format_template", request).text
        return text

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, by which the harness tells prompts apart."""
        return self._run.plugin("template").name if chat_template else None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        ask = super().loglikelihood
        return [
            (each[0], each[1])
            for each in self._kept(requests, lambda left: ask(left, disable_tqdm=True))
        ]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        ask = super().loglikelihood_rolling
        return self._kept(requests, lambda left: ask(left, disable_tqdm=True))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        ask = super().generate_until
        return self._kept(requests, lambda left: ask(left, disable_tqdm=True))

    def _kept(self, requests: list[Any], ask: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Answers of the requests: those of the file, and the model's, which are added to it."""
        first, self._asked = self._asked + 1, self._asked + len(requests)
        digests = [_digest(each.args) for each in requests]
        left = [
            place
            for place, digest in enumerate(digests)
            if self._known.get(first + place, {}).get("request") != digest
        ]
        size = _CHUNK * int(self.batch_size)
        for start in range(0, len(left), size):
            self._progress("requests", len(requests) - len(left) + start, len(requests))
            places = left[start : start + size]
            for place, answer in zip(places, ask([requests[each] for each in places]), strict=True):
                row = {"row": first + place, "request": digests[place], "answer": answer}
                self._lines.add(row)
                self._known[first + place] = row
        self._progress("requests", len(requests), len(requests))
        return [self._known[first + place]["answer"] for place in range(len(requests))]


def _digest(arguments: Any) -> str:
    told = json.dumps(arguments, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(told.encode(errors="replace")).hexdigest()[:32]
