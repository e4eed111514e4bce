"""Processors that come with a checkpoint's own code, written for transformers 4: they do not tell
what they write in place of a placeholder."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tunewright_hf.media.expander import OF_TEXT, Expansion, MediaProcessor, Medium, empty
from tunewright_hf.media.shapes import Shape

__all__ = ["media_processor"]


def media_processor(processor: Any) -> MediaProcessor:
    """The MediaProcessor of a processor of transformers, or of a checkpoint's own code."""
    own = type(processor).__module__.startswith("transformers_modules")
    return ForeignProcessor(processor) if own else MediaProcessor(processor)


class ForeignProcessor(MediaProcessor):
    """Asks for one medium alone: what it becomes is all of the ids but those of an empty text. So a
    medium's tokens must not depend on the row's others. Images alone are known of such code."""

    _independent = True
    _types = ()

    @cached_property
    def axes(self) -> dict[str, int]:
        return {}

    def tensors(self, media: Sequence[Medium]) -> dict[str, Any]:
        found = self._call(media, return_tensors="pt")
        given = {name: value for name, value in found.items() if name not in OF_TEXT}
        shapes = [medium.shape for medium in media]
        return {"ids": [each.ids for each in self.expansions(shapes)], **given}

    def _ask(self, shapes: tuple[Shape, ...]) -> tuple[Expansion, ...]:
        found = []
        before = self.processor.tokenizer("")["input_ids"]  # a BOS, with some
        for shape in shapes:
            ids = self._call([empty(shape, ())])["input_ids"][0]
            found.append(Expansion("", tuple(map(int, ids[len(before) :])), ""))
        return tuple(found)

    def _call(self, media: Sequence[Medium], rows: int = 1, **how: Any) -> Any:
        text = "".join(self.tokens[medium.shape.kind] for medium in media)
        return self.processor(text=[text], images=[each.content for each in media], **how)
