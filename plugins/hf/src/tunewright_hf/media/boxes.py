"""Objects in images as text: names and boxes, in the form and the scale of a model's family."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tunewright import RecipeError, RowError
from tunewright.types import ObjectPart, TextPart
from tunewright_hf.media.shapes import Shape
from tunewright_hf.templates.info import PLACE, TAG, BoxForm

__all__ = ["ReadObject", "as_data", "boxes_text", "read_objects", "ref_parts", "seen_size"]

_OUTSIDE = 1.0  # pixels by which a box may leave its image: many are rounded

#: an image's shape → its width and height in pixels, as the model sees it
SeenSize = Callable[[Shape], tuple[int, int]]


def ref_parts(name: str, form: BoxForm) -> list[TextPart]:
    """The name of an object. Control tokens that it spells are plain text."""
    before, after = form.ref.split("{ref}")
    parts = [TextPart(before, control=True), TextPart(name), TextPart(after, control=True)]
    return [part for part in parts if part.text]


def boxes_text(
    parts: Sequence[tuple[ObjectPart, Shape]], form: BoxForm, seen: SeenSize
) -> TextPart:
    """Boxes or points that follow each other, each with its image. Raises RowError if one leaves
    its image, and if the form has no points."""
    written = form.separator.join if form.open else "".join
    texts = [_box_text(part, image, form, seen) for part, image in parts]
    return TextPart(f"{form.open}{written(texts)}{form.close}", control=True)


def _box_text(part: ObjectPart, image: Shape, form: BoxForm, seen: SeenSize) -> str:
    size = (image.width, image.height)
    across = (1.0, 1.0) if part.scale == "unit" else size
    values = []
    for index, value in enumerate(part.box):
        whole = across[index % 2]
        if value > whole + _OUTSIDE / size[index % 2] * whole:
            where = f"{image.width} x {image.height}" if part.scale == "pixels" else "0 to 1"
            raise RowError(f"box {list(part.box)} leaves its image, {where}")
        values.append(min(value / whole, 1.0))
    written = form.box if len(part.box) == 4 else form.point
    if not written:
        raise RowError("has a point, and the template has no form for points")
    target = seen(image) if form.scale == "seen" else (form.scale, form.scale)
    names = ("x1", "y1", "x2", "y2") if len(part.box) == 4 else ("x", "y")
    numbers = {
        name: f"{value:.3f}" if form.scale == "unit" else str(round(value * int(target[index % 2])))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    }
    return PLACE.sub(lambda match: numbers[match["name"]].zfill(int(match["digits"] or 0)), written)


def seen_size(processor: Any) -> SeenSize:
    """Ask a processor for the sizes to which it resizes images, once for each shape. Raises
    RecipeError if it does not tell: it has no `image_grid_thw`."""

    @lru_cache(maxsize=4096)
    def asked(width: int, height: int) -> tuple[int, int]:
        from PIL import Image  # boxes are also read back where no image is

        images = processor.image_processor
        found = images(images=[Image.new("RGB", (width, height))], return_tensors="np")
        if "image_grid_thw" not in found:
            raise RecipeError(
                "the template writes boxes in the pixels of resized images, and the model's "
                "processor does not tell these",
                place="template",
            )
        _, rows, columns = found["image_grid_thw"][0].tolist()
        return columns * images.patch_size, rows * images.patch_size

    return lambda shape: asked(shape.width, shape.height)


# ---- reading back --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadObject:
    """A name or a box in a generated text. box: as written, in the scale of its form."""

    ref: str | None = None
    box: tuple[float, ...] = ()


def as_data(found: list[ReadObject], form: BoxForm) -> dict[str, Any]:
    """Objects as ms-swift's column `objects` has them: boxes from 0 to 1, or, where the form has
    them so, in pixels of the resized image (bbox_type seen)."""
    boxes = [list(each.box) for each in found if each.box]
    if isinstance(form.scale, int):
        boxes = [[value / form.scale for value in box] for box in boxes]
    return {
        "ref": [each.ref for each in found if each.ref is not None],
        "bbox": boxes,
        "bbox_type": "seen" if form.scale == "seen" else "norm1",
    }


def read_objects(text: str, form: BoxForm) -> list[ReadObject]:
    """Names, boxes and points that a text holds in this form, in order. Names are found only if the
    form has something around them. Between the tokens of `open` and `close`, a model may write
    other brackets than the form has."""
    found = []
    boxes = tuple(each for each in (form.box, form.point) if each)
    if form.open:
        pattern = _pattern(*(each.strip(_BRACKETS) for each in boxes))
        for group in _group(form.open, form.close).finditer(text):
            places = pattern.finditer(text, *group.span("boxes"))
            found += [(match.start(), _read(match)) for match in places]
        boxes = ()
    for written in (*boxes, *([form.ref] if form.ref != "{ref}" else [])):
        found += [(match.start(), _read(match)) for match in _pattern(written).finditer(text)]
    return [each for _, each in sorted(found, key=lambda one: one[0])]


_BRACKETS = "[]()<> "


@lru_cache(maxsize=64)
def _group(before: str, after: str) -> re.Pattern[str]:
    """Finds boxes between the tokens of these texts, if there is nothing but numbers."""
    tokens = ("".join(TAG.findall(text)) or text for text in (before, after))
    start, end = map(re.escape, tokens)
    return re.compile(rf"{start}(?P<boxes>[\d\s.,\[\](){{}}<>]*?){end}")


def _read(match: re.Match[str]) -> ReadObject:
    groups = {name: each for name, each in match.groupdict().items() if each is not None}
    if "ref" in groups:
        return ReadObject(ref=groups["ref"])
    names = ("x1", "y1", "x2", "y2") if "x1" in groups else ("x", "y")
    return ReadObject(box=tuple(float(groups[name]) for name in names))


@lru_cache(maxsize=64)
def _pattern(*forms: str) -> re.Pattern[str]:
    """Finds the first of these forms that stands at a place."""
    return re.compile("|".join("".join(_pieces(form)) for form in forms), re.DOTALL)


def _pieces(form: str) -> Iterator[str]:
    """Pieces of a regular expression that finds this form; its white space is optional."""
    at = 0
    for place in PLACE.finditer(form):
        yield _literal(form[at : place.start()])
        what = ".*?" if place["name"] == "ref" else r"\d+(?:\.\d+)?"
        yield f"(?P<{place['name']}>{what})"
        at = place.end()
    yield _literal(form[at:])


def _literal(text: str) -> str:
    return r"\s*".join(("", *map(re.escape, text.split()), ""))
