"""Prompts of requests: rendered by the run's template and encoded as in training."""

import copy
import threading
from collections.abc import Iterator, Sequence

from tunewright import RowError, RunError
from tunewright.inference import GenerateRequest, PromptInput
from tunewright.types import (
    Conversation,
    LoadedModel,
    MediaPart,
    Rendered,
    RunContext,
    TemplateRequest,
)
from tunewright_hf.media.collation import MediaRows, media_rows
from tunewright_hf.media.data_urls import of_url
from tunewright_hf.media.decode import measure
from tunewright_hf.media.files import Source
from tunewright_hf.media.prompts import PromptMedia, prompt_media
from tunewright_hf.media.shapes import MediaKind, Shape
from tunewright_hf.tokenization.encode import Encoded, Tokeniser

__all__ = ["PromptEncoder", "media_parts"]


class PromptEncoder:
    """Encodes prompts, and knows what ends answers. Thread-safe.

    size: token ids are below it. stop_ids: of the template's stop tokens and the tokenizer's EOS.
    stop_strings: stop tokens of the template that are not in the vocabulary. kinds: of media that
    the model takes.
    """

    def __init__(self, run: RunContext, loaded: LoadedModel) -> None:
        info = run.plugin("template").info
        self._run, self.tokenizer = run, loaded.tokenizer
        self._tokeniser = Tokeniser(loaded.tokenizer, info)
        vocabulary = loaded.tokenizer.get_vocab()
        self.size = max(vocabulary.values()) + 1
        self.stop_ids = frozenset(vocabulary[token] for token in info.stop if token in vocabulary)
        if loaded.tokenizer.eos_token_id is not None:
            self.stop_ids |= {loaded.tokenizer.eos_token_id}
        self.stop_strings = tuple(token for token in info.stop if token not in vocabulary)
        self._rows = _media_rows(loaded)
        self._asking = threading.Lock()  # processors set their tokenizer's padding
        self.kinds: tuple[MediaKind, ...] = tuple(self._rows.media.tokens) if self._rows else ()

    def encode(self, request: GenerateRequest) -> list[int]:
        """Token ids of a request's prompt. Of its media, headers are read. Raises RowError if it
        does not fit the template, or a medium cannot be read."""
        asked = request.conversation if request.prompt is None else request.prompt
        return self.encode_input(asked, add_generation_prompt=True)

    def media(self, request: GenerateRequest, ids: Sequence[int]) -> PromptMedia | None:
        """Media of a request, whose prompt has these ids; None without any. Raises RowError if one
        cannot be read, or they do not fit."""
        asked = request.prompt if isinstance(request.prompt, str) else request.conversation
        return self.media_of(asked, ids)

    def media_of(self, asked: PromptInput, ids: Sequence[int]) -> PromptMedia | None:
        """As `media`, of a conversation; a text and ids have none."""
        if self._rows is None:
            return None
        parts = list(media_parts(asked)) if isinstance(asked, Conversation) else []
        found = [self._rows.read(part.kind, _source(part)) for part in parts]
        try:
            with self._asking:
                return prompt_media(self._rows, ids, found)
        except RunError as error:  # of a batch that the model cannot have
            raise RowError(error.problem, place="messages") from error

    def encode_input(self, asked: PromptInput, *, add_generation_prompt: bool) -> list[int]:
        """Token ids of a conversation, a text or ids. Raises RowError."""
        if isinstance(asked, Conversation):
            ids = self._render(asked, add_generation_prompt).input_ids
        elif isinstance(asked, str):
            _check_utf_8(asked)
            ids = self.tokenizer(asked)["input_ids"]
        else:
            ids = asked
        if not ids:
            raise RowError("has no tokens", place="prompt")
        if not all(0 <= token < self.size for token in ids):
            raise RowError(
                f"a token id is not below {self.size}, the size of the vocabulary",
                place="prompt",
            )
        return list(ids)

    def encode_answer(self, asked: PromptInput) -> list[int]:
        """As `encode_input`, of a conversation up to the end of its last answer, where reward
        models are trained: templates may write more after it."""
        ids = self.encode_input(asked, add_generation_prompt=False)
        if not isinstance(asked, Conversation):
            return ids
        labels = self._render(asked, add_generation_prompt=False).labels
        end = max((at for at, label in enumerate(labels) if label != -100), default=len(ids) - 1)
        return ids[: end + 1]

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _render(self, conversation: Conversation, add_generation_prompt: bool) -> Encoded:
        rendered = self._run.call(
            "template",
            "format_template",
            TemplateRequest(
                conversation,
                add_generation_prompt=add_generation_prompt,
                special_tokens=self._tokeniser.special_tokens,
                tokenizer=self.tokenizer,
            ),
        )
        _check_utf_8(rendered.text)
        if parts := list(media_parts(conversation)):
            rendered = self._expanded(rendered, parts)
        return self._tokeniser.encode(rendered)

    def _expanded(self, rendered: Rendered, parts: Sequence[MediaPart]) -> Rendered:
        for part in parts:
            if part.kind not in self.kinds:
                taken = ", ".join(("text", *self.kinds)) if self.kinds else "text alone"
                raise RowError(f"has {part.kind}, and {taken} is taken here", place="messages")
        assert self._rows
        shapes: list[Shape] = [measure(part.kind, _source(part)) for part in parts]
        with self._asking:
            return self._rows.media.expand(rendered, shapes)


def _media_rows(loaded: LoadedModel) -> MediaRows | None:
    """Of a processor with a tokenizer of its own, whose padding it may set. None for a model
    elsewhere."""
    rows = media_rows(loaded) if loaded.model is not None else None
    if rows is not None:
        rows.media.processor = copy.copy(loaded.processor)
        rows.media.processor.tokenizer = copy.deepcopy(loaded.tokenizer)
    return rows


def media_parts(conversation: Conversation) -> Iterator[MediaPart]:
    """Media of a conversation, in order."""
    for message in conversation.messages:
        if not isinstance(message.content, str):
            yield from (part for part in message.content if isinstance(part, MediaPart))


def _source(part: MediaPart) -> Source:
    if part.data is not None:
        return part.data
    return of_url(part.path, part.kind) if part.path.startswith("data:") else part.path


def _check_utf_8(text: str) -> None:
    """Raise RowError for half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = ascii(text[max(0, error.start - 15) : error.start + 1])
        problem = f"no text of UTF-8, or half of a surrogate pair: {found}"
        raise RowError(problem, hint="write the messages anew") from error
