"""Contact sheet: the media of previewed examples, small, in one image."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from tunewright_data.media import described
from tunewright_hf.media.decode import decode

EDGE, LABEL, GAP = 240, 30, 12  # pixels of a cell: of its image, the text below it, around it
ACROSS = 4  # cells in a row
INK, PAPER, WAVE = "#3b4252", "white", "#2f6fb5"
_SECOND_LINE = 40  # characters in a line of a label


def draw(samples: list[Any], path: Path) -> None:
    """Write a PNG file with the media of the examples, each with its row and its tokens. It is
    replaced atomically. Raises RowError if a medium is damaged."""
    media = [(sample.origin, medium) for sample in samples for medium in sample.media]
    rows = -(-len(media) // ACROSS)
    across = min(len(media), ACROSS)
    cell = (EDGE + GAP, EDGE + LABEL + GAP)
    sheet = Image.new("RGB", (across * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (origin, medium) in enumerate(media):
        left, top = GAP + number % ACROSS * cell[0], GAP + number // ACROSS * cell[1]
        small = ImageOps.contain(_picture(medium), (EDGE, EDGE))
        sheet.paste(small, (left + (EDGE - small.width) // 2, top + (EDGE - small.height) // 2))
        lines = f"{origin[-_SECOND_LINE:]}\n{described(medium)[:_SECOND_LINE]}"
        pen.text((left, top + EDGE + 2), lines, INK)
    beside = path.with_name(path.name + ".tmp")
    sheet.save(beside, format="png")
    os.replace(beside, path)


def _picture(medium: Any) -> Image.Image:
    """An image, the middle frame of a video, or the loudness of audio over time."""
    if medium.kind == "video":
        middle = medium.shape.frames // 2
        return Image.fromarray(decode("video", medium.path, (middle,))[0])
    content = decode(medium.kind, medium.path)
    if medium.kind == "image":
        found: Image.Image = content
        return found
    picture = Image.new("RGB", (EDGE, EDGE), PAPER)
    pen = ImageDraw.Draw(picture)
    for column, part in enumerate(np.array_split(content, EDGE)):
        height = round(float(np.abs(part).max(initial=0)) * EDGE / 2)
        pen.line([(column, EDGE // 2 - height), (column, EDGE // 2 + height)], WAVE)
    return picture
