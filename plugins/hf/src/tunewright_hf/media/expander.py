"""MediaProcessor: tokens and tensors of media, as the model's own processor makes them.

The processor is asked through its public call, with a text of nothing but placeholders, so no
family says how many tokens an image takes. They depend on the medium's shape alone: before
training, the processor is asked with an empty medium of the same shape, once per shape, and no
pixel is decoded.
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from PIL import Image

from tunewright import RecipeError, RowError
from tunewright.types import Rendered
from tunewright_hf.media.shapes import RATE, Content, MediaKind, Shape
from tunewright_hf.media.splicing import spliced

__all__ = ["MediaProcessor", "Medium", "noise"]

KINDS: tuple[MediaKind, ...] = ("image", "video", "audio")
#: token types, by the processors' names for them
TYPES = ("mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids")
OF_TEXT = {
    *("input_ids", "attention_mask", "labels", *TYPES),
    *("text_replacement_offsets", "cross_attention_mask"),
}


@dataclass(frozen=True)
class Medium:
    """A decoded medium. content: of a video, the frames that `MediaProcessor.frames` names."""

    shape: Shape
    content: Content
    path: str = ""  # for errors


@dataclass(frozen=True, slots=True)
class Expansion:
    """Takes the place of one placeholder: text before and after it, and ids from the first added
    token to the last, which no text around them changes."""

    before: str
    ids: tuple[int, ...]
    after: str


class MediaProcessor:
    """A transformers processor. Raises RecipeError if no placeholder is a token of its tokenizer.

    tokens: placeholder of each kind of media that the model takes.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        added = processor.tokenizer.added_tokens_encoder
        names: dict[MediaKind, Any]
        names = {kind: getattr(processor, f"{kind}_token", None) for kind in KINDS}
        # SmolVLM names a token for videos that its tokenizer has not
        self.tokens: dict[MediaKind, str] = {
            kind: str(token) for kind, token in names.items() if token in added
        }
        if not self.tokens:
            wanted = ", ".join(filter(None, names.values()))
            problem = f"the tokenizer has no token for {wanted}, which stands for media"
            raise RecipeError(problem, place="model")
        self._ids = {kind: added[token] for kind, token in self.tokens.items()}
        self._asked = lru_cache(maxsize=4096)(self._ask)
        self._read: dict[str, Expansion] = {}  # by the text that the processor writes

    def expand(self, rendered: Rendered, shapes: Sequence[Shape]) -> Rendered:
        """The text with `media`: the ids that take the place of each placeholder.

        shapes: of the conversation's media, in order. The text changes only where a model writes
        more than tokens around its media (Gemma 3: empty lines). Raises RowError if the template
        has not one placeholder for each medium.
        """
        places = self._places(rendered)
        found = [kind for _, _, kind in places]
        if sorted(found) != sorted(shape.kind for shape in shapes):
            has, wanted = _counted(found), _counted(shape.kind for shape in shapes)
            if {shape.kind for shape in shapes} - self.tokens.keys():
                raise RowError(f"has {wanted}, and the model takes {', '.join(self.tokens)} only")
            raise RowError(f"has {wanted}, and the template writes places for {has}")
        if not places:
            return rendered
        waiting = {kind: [shape for shape in shapes if shape.kind == kind] for kind in KINDS}
        expansions = self.expansions([waiting[kind].pop(0) for kind in found])
        changes = [
            (start, end, f"{each.before}{rendered.text[start:end]}{each.after}")
            for (start, end, _), each in zip(places, expansions, strict=True)
        ]
        media: list[tuple[int, Sequence[int]]] = [
            (self._ids[kind], each.ids) for kind, each in zip(found, expansions, strict=True)
        ]
        return replace(spliced(rendered, changes), media=media)

    def expansions(self, shapes: Sequence[Shape]) -> list[Expansion]:
        """Expansions of one row's media, in the order of the text."""
        if self._independent:
            return [self._asked((shape,))[0] for shape in shapes]
        return list(self._asked(tuple(shapes)))

    def frames(self, shape: Shape) -> tuple[int, ...]:
        """Indices of the frames that the model sees of a video, as its processor samples them, at
        most `max_frames` of it: ascending, some twice. Empty for other media. Raises RowError if
        the video is too short."""
        if shape.kind != "video":
            return ()
        video = self.processor.video_processor
        try:
            found = video.sample_frames(_metadata(shape, ()))
        except (ValueError, ZeroDivisionError) as error:
            problem = f"a video of {shape.frames} frames cannot be sampled: {error}"
            raise RowError(problem) from error
        indices = np.asarray(found).astype(int)
        most = getattr(video, "max_frames", None) or len(indices)
        if len(indices) > most:
            indices = indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]
        return tuple(indices.tolist())

    def placeholder(self, kind: MediaKind) -> int:
        """Id of the placeholder of a kind of media."""
        return self._ids[kind]

    def token_types(self, input_ids: Sequence[int]) -> dict[str, list[int]]:
        """Kind of each token (T,), where the model takes it, by the model's name for it."""
        usual = self.processor.create_mm_token_type_ids
        made = {name: getattr(self.processor, f"create_{name}", usual) for name in self._types}
        return {name: create([list(input_ids)])[0] for name, create in made.items()}

    def restored(self, text: str, shapes: Sequence[Shape]) -> str:
        """A text before `expand`, from one that has a placeholder for the ids of each medium."""
        tokens = re.compile("|".join(map(re.escape, self.tokens.values())))
        pieces, at = [], 0
        for place, each in zip(tokens.finditer(text), self.expansions(shapes), strict=False):
            before, after = text[at : place.start()], text[place.end() :]
            pieces += [before.removesuffix(each.before), place[0]]
            at = len(text) - len(after.removeprefix(each.after))
        return "".join([*pieces, text[at:]])

    def tensors(self, media: Sequence[Medium]) -> dict[str, Any]:
        """The model's inputs for the media of one row, in order, as torch tensors with the media's
        own first dimension; and `ids`, one tuple for each medium, to compare with the row's."""
        found = self._call(media, return_tensors="pt", return_text_replacement_offsets=True)
        expansions = self._expansions(found, [medium.shape.kind for medium in media])
        given = {name: value for name, value in found.items() if name not in OF_TEXT}
        return {"ids": [each.ids for each in expansions], **given}

    # ---- asking ----------------------------------------------------------------------------------

    @cached_property
    def _independent(self) -> bool:
        """Whether a medium's tokens are the same whatever else the row has. Some models number the
        images of a row, or tile a lone one more finely."""
        one = self.probes()[0]
        return self._ask((one, one)) == self._ask((one,)) * 2

    def probes(self) -> list[Shape]:
        """An image and a sound to try the model with, as far as it takes them."""
        shapes = (Shape("image", width=640, height=480), Shape("audio", samples=RATE))
        return [shape for shape in shapes if shape.kind in self.tokens]

    @cached_property
    def axes(self) -> dict[str, int]:
        """By name, the dimension along which tensors of several rows are joined, where it is not
        the first: MiniCPM-V puts the patches of all images side by side."""
        medium = empty(self.probes()[0], ())
        alone, twice = (
            self._call(media, return_tensors="pt") for media in ([medium], [medium] * 2)
        )
        names = [name for name in twice if name not in OF_TEXT and len(twice[name]) == 1]
        if not names:
            return {}
        rows = self._call([medium], rows=2, return_tensors="pt")
        found: dict[str, int] = {}
        for name in names:
            sizes = zip(rows[name].shape, alone[name].shape, strict=True)
            if axis := next(place for place, (two, one) in enumerate(sizes) if two != one):
                found |= {name: axis, f"{name}_videos": axis}
        return found

    @cached_property
    def _types(self) -> tuple[str, ...]:
        found = self._call([empty(self.probes()[0], ())])
        return tuple(name for name in TYPES if name in found)

    def _ask(self, shapes: tuple[Shape, ...]) -> tuple[Expansion, ...]:
        media = [empty(shape, self.frames(shape)) for shape in shapes]
        found = self._call(media, return_text_replacement_offsets=True)
        return self._expansions(found, [shape.kind for shape in shapes])

    def _expansions(self, found: Any, kinds: Sequence[MediaKind]) -> tuple[Expansion, ...]:
        offsets = found.get("text_replacement_offsets")
        if not offsets:  # cross-attention: the placeholder stays one token
            return tuple(Expansion("", (self._ids[kind],), "") for kind in kinds)
        if len(self._read) > 256:  # long texts
            self._read.clear()
        return tuple(self._expansion(each["replacement"]) for each in offsets[0])

    def _expansion(self, text: str) -> Expansion:
        if text not in self._read:
            tokens = list(self._added.finditer(text))
            start, end = tokens[0].start(), tokens[-1].end()
            ids = self.processor.tokenizer(text[start:end], add_special_tokens=False)["input_ids"]
            self._read[text] = Expansion(text[:start], tuple(ids), text[end:])
        return self._read[text]

    @cached_property
    def _added(self) -> re.Pattern[str]:
        added = sorted(self.processor.tokenizer.added_tokens_encoder, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, added)))

    def _call(self, media: Sequence[Medium], rows: int = 1, **how: Any) -> Any:
        text = "".join(self.tokens[medium.shape.kind] for medium in media)
        by_kind = {kind: [each for each in media if each.shape.kind == kind] for kind in KINDS}
        given: dict[str, Any] = {}
        if images := by_kind["image"]:
            given["images"] = [[image.content for image in images]] * rows
        if videos := by_kind["video"]:
            given["videos"] = [video.content for video in videos]
            given["video_metadata"] = [
                _metadata(video.shape, self.frames(video.shape)) for video in videos
            ]
            given["do_sample_frames"] = False
        if audio := by_kind["audio"]:
            given |= {"audio": [each.content for each in audio], "sampling_rate": RATE}
        with warnings.catch_warnings():  # GLM-4V gives tensors to NumPy
            warnings.simplefilter("ignore", DeprecationWarning)
            return self.processor(text=[text] * rows, **given, **how)

    def _places(self, rendered: Rendered) -> list[tuple[int, int, MediaKind]]:
        """Start, end and kind of the placeholders that the template wrote. Those that are spelled
        in data are plain text."""
        spelled = {span.start for span in (*rendered.untrusted, *rendered.answers)}
        return sorted(
            (match.start(), match.end(), kind)
            for kind, token in self.tokens.items()
            for match in re.finditer(re.escape(token), rendered.text)
            if match.start() not in spelled
        )


def _metadata(shape: Shape, frames: tuple[int, ...]) -> Any:
    from transformers.video_utils import VideoMetadata

    return VideoMetadata(
        total_num_frames=shape.frames,
        fps=shape.fps,
        width=shape.width,
        height=shape.height,
        duration=shape.frames / shape.fps,
        frames_indices=list(frames),
    )


def empty(shape: Shape, frames: tuple[int, ...]) -> Medium:
    """A black or silent medium of this shape."""
    if shape.kind == "image":
        return Medium(shape, Image.new("RGB", (shape.width, shape.height)))
    if shape.kind == "audio":
        return Medium(shape, np.zeros(shape.samples, np.float32))
    return Medium(shape, np.zeros((len(frames), shape.height, shape.width, 3), np.uint8))


def noise(shape: Shape, seed: int) -> Content:
    """Content of an image, or of audio, that is different with another seed."""
    random = np.random.default_rng(seed)
    if shape.kind == "image":
        pixels = random.integers(0, 256, (shape.height, shape.width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)
    return random.normal(0, 0.1, shape.samples).astype(np.float32)


def _counted(kinds: Iterable[MediaKind]) -> str:
    found = list(kinds)
    return ", ".join(f"{found.count(kind)} {kind}" for kind in KINDS if kind in found) or "no media"
