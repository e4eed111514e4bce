"""Images: their size from the header, and their pixels as RGB. Read by Pillow."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tunewright import RowError
from tunewright_hf.media.files import Source, opened, shown, unreadable
from tunewright_hf.media.shapes import Shape

__all__ = ["FORMATS", "MAX_PIXELS", "MAX_RATIO", "decode_image", "measure_image"]

#: formats of Pillow that are read; the decoders of all others are never tried
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 40_000_000  # of an image, judged by its header: a page of A4 at 600 dpi has 35 million
MAX_RATIO = 200  # longest side to shortest: processors make thousands of tokens of a thin strip

#: EXIF orientation → how the pixels are turned to be seen upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_BROKEN = (OSError, SyntaxError, ValueError, IndexError, EOFError)


def measure_image(path: Source) -> Shape:
    """Width and height in pixels as seen, from the header. Raises RowError if the file is not an
    image of FORMATS, has more than MAX_PIXELS, or is a strip."""
    with _header(path) as image:
        width, height = image.size
        if _orientation(image) in _SIDEWAYS:
            width, height = height, width
        return Shape("image", width, height)


def decode_image(path: Source) -> Image.Image:
    """The image in mode RGB, upright: the first frame of an animation, on white where it is
    transparent, 16 bits scaled to 8. Raises RowError as `measure_image` does, and if the file is
    damaged."""
    with _header(path) as image:
        turn = _TURNS.get(_orientation(image))
        try:
            image.load()
            seen = image.transpose(turn) if turn is not None else image
            return _rgb(seen, path)
        except _BROKEN as error:
            raise unreadable("image", path, error) from error


@contextmanager
def _header(path: Source) -> Iterator[Image.Image]:
    """An image whose header was read and is within the limits, and whose pixels were not."""
    with opened("image", path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow: doubtful metadata, and its own size limit
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise RowError(f"image {shown(path)} has more than {MAX_PIXELS:,} pixels") from error
        except UnidentifiedImageError as error:
            expected = ", ".join(FORMATS)
            raise RowError(
                f"image {shown(path)} is not an image that is read here: {expected}"
            ) from error
        except _BROKEN as error:
            raise unreadable("image", path, error) from error
        width, height = image.size
        size = f"image {shown(path)} has {width:,} x {height:,} pixels"
        if width * height > MAX_PIXELS:
            raise RowError(f"{size}, more than {MAX_PIXELS:,}", hint="make it smaller")
        if max(width, height) > MAX_RATIO * min(width, height):
            raise RowError(f"{size}, a strip longer than 1 to {MAX_RATIO}")
        yield image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation. Pillow turns TIFF itself. For a PNG without EXIF before its pixels it would
    decode these to look behind them."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    found: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found


def _rgb(image: Image.Image, path: Source) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would clip the values to 8 bits: nearly all white
        eight = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(eight.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):  # no range is known
        raise RowError(
            f"image {shown(path)} has 32 bits a pixel", hint="save it with 8 or 16 bits a channel"
        )
    if image.mode in _ALPHA or "transparency" in image.info:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, "white")
        return Image.alpha_composite(white, above).convert("RGB")
    if image.mode == "RGB" and image.format == "JPEG":  # of one frame: convert would copy it
        return image
    return image.convert("RGB")
