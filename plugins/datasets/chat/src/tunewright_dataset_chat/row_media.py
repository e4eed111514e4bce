"""Media of rows: their sizes, the objects in them as text, and their tokens in rendered text."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tunewright import RowError
from tunewright.types import (
    Conversation,
    MediaPart,
    Message,
    ObjectPart,
    Part,
    Prompt,
    Rendered,
    Row,
    Span,
    Text,
    TextPart,
)
from tunewright_dataset_chat import media
from tunewright_dataset_chat.columns import MEDIA
from tunewright_dataset_chat.samples import SeenMedium

if TYPE_CHECKING:
    from tunewright_hf.media.shapes import Shape

#: conversation → its text, without media
Render = Callable[[Conversation], Rendered]
# texts around a medium, by which its surroundings are found in a rendered message
_BEFORE, _AFTER = "tunewright before", "tunewright after"


class RowMedia:
    """Media of the rows of one model. processor: transformers' own; None: the model takes text
    only, and nothing of media is imported. info: the template's TemplateInfo."""

    def __init__(self, processor: Any, tokenizer: Any, info: Any, render: Render) -> None:
        self._tokenizer, self._boxes, self._render = tokenizer, info.boxes, render
        self._expander = self._seen = None
        if processor is not None:
            from tunewright_hf.media.boxes import seen_size
            from tunewright_hf.media.decode import measure
            from tunewright_hf.media.foreign import media_processor

            self._expander, self._seen = media_processor(processor), seen_size(processor)
            self._measure = lru_cache(maxsize=1024)(measure)  # a row is rendered several times
        self._around = lru_cache(maxsize=8)(self._written_around)

    def check(self, row: Row) -> None:
        """Measure the media of a row, and write its objects as text. Raises RowError if the model
        does not take them, they cannot be read, or an answer has some."""
        found = list(media.parts(row))
        for part in found:
            self._check_kind(part)
        if self._expander and isinstance(row, Prompt) and MEDIA in row.columns:
            raise RowError(f"{MEDIA}: is a column of the prepared rows, call it otherwise")
        for number, message in enumerate(media.messages(row), 1):
            if message.role == "assistant" and (given := media.of_messages([message])):
                problem = f"message {number} is from assistant and has {media.name(given[0])}"
                raise RowError(f"{problem}, and models answer with text here")
        images = [self._shape(part) for part in found if part.kind == "image"]
        for message in media.messages(row):
            message.content = self._with_objects(message.content, images)
        if isinstance(row, Text):
            row.text = self._with_objects(row.text, images)

    def expand(self, rendered: Rendered, messages: Iterable[Message]) -> Rendered:
        """The text with the tokens of the messages' media. Raises RowError."""
        return self._expanded(rendered, media.of_messages(messages))

    def seen(self, parts: list[MediaPart]) -> list[SeenMedium]:
        """Media of a row, in order, with their sizes and numbers of tokens."""
        if self._expander is None or not parts:
            return []
        shapes = [self._shape(part) for part in parts]
        return [
            SeenMedium(part.kind, part.path, shape, len(expansion.ids))
            for part, shape, expansion in zip(
                parts, shapes, self._expander.expansions(shapes), strict=True
            )
        ]

    def document(self, row: Text) -> Rendered:
        """A document with media: as long as without, and with the special tokens that the tokenizer
        adds and EOS at its end. Only its text is trained. Raises RowError."""
        assert self._expander
        bos, eos = self._tokenizer.bos_token, self._tokenizer.eos_token or ""
        adds_bos = bos and self._tokenizer("a")["input_ids"][:1] == [self._tokenizer.bos_token_id]
        pieces: list[str] = []
        trained: list[Span] = []
        spelled: list[Span] = []
        length = 0

        def write(text: str, train: bool) -> None:
            nonlocal length
            if train and text:
                trained.append(Span(length, length + len(text)))
            pieces.append(text)
            length += len(text)

        write(bos if adds_bos else "", True)
        for part in row.text:
            if isinstance(part, TextPart):
                spelled += self._places(part.text, length)
                write(part.text, True)
            elif isinstance(part, MediaPart):
                write(self._around(part.kind), False)
        write(eos, True)
        rendered = Rendered("".join(pieces), trained, untrusted=spelled)
        return self._expanded(rendered, list(media.parts(row)))

    def _expanded(self, rendered: Rendered, parts: list[MediaPart]) -> Rendered:
        if self._expander is None:
            return rendered
        found: Rendered = self._expander.expand(rendered, [self._shape(part) for part in parts])
        return found

    def _check_kind(self, part: MediaPart) -> None:
        if self._expander is None:
            raise RowError(
                f"has {media.name(part)}, and these rows hold text only",
                hint="take images, videos and audio out of the data, or a model that takes them",
            )
        if part.kind not in self._expander.tokens:
            taken = " and ".join(self._expander.tokens)
            raise RowError(f"has {media.name(part)}, and this model takes {taken} only")

    def _shape(self, part: MediaPart) -> "Shape":
        return self._measure(part.kind, part.path)

    def _places(self, text: str, start: int) -> list[Span]:
        """Placeholders that a document spells: plain text."""
        assert self._expander
        found = []
        for token in self._expander.tokens.values():
            place = text.find(token)
            while place >= 0:
                found.append(Span(start + place, start + place + len(token)))
                place = text.find(token, place + len(token))
        return found

    def _written_around(self, kind: Any) -> str:
        """A medium's placeholder, with what the template writes around it in a message."""
        asked: list[Part] = [TextPart(_BEFORE), MediaPart(kind, ""), TextPart(_AFTER)]
        text = self._render(Conversation([Message("user", asked), Message("assistant", "a")])).text
        _, found, rest = text.partition(_BEFORE)
        written, ends, _ = rest.partition(_AFTER)
        if not (found and ends):
            raise RowError(f"has {kind}, and the template does not write it where it stands")
        return written

    # ---- objects ---------------------------------------------------------------------------------

    def _with_objects(self, content: str | list[Part], images: list["Shape"]) -> str | list[Part]:
        if isinstance(content, str) or not any(isinstance(part, ObjectPart) for part in content):
            return content
        from tunewright_hf.media.boxes import ref_parts

        if self._boxes is None:
            raise RowError(
                "has objects with names and boxes, and the template has no form for them",
                hint="write them into the texts, in the form of the model",
            )
        found: list[Part] = []
        for kind, group in groupby(content, _object_kind):
            parts: list[Any] = list(group)
            if kind == "box":
                found.append(self._boxes_text(parts, images))
            elif kind == "ref":
                found += [text for part in parts for text in ref_parts(part.text, self._boxes)]
            else:
                found += parts
        return found

    def _boxes_text(self, parts: list[Any], images: list["Shape"]) -> TextPart:
        from tunewright_hf.media.boxes import boxes_text

        for part in parts:
            if part.image >= len(images):
                raise RowError(f"a box is in image {part.image}, and the row has {len(images)}")
        assert self._seen  # of the processor, without which there are no images
        found = [(part, images[part.image]) for part in parts]
        return boxes_text(found, self._boxes, self._seen)


def _object_kind(part: Part) -> str:
    return part.kind if isinstance(part, ObjectPart) else ""
