"""Images are measured by their headers, and decoded as a person sees them."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from media.samples import halves, image, png
from tunewright import RowError
from tunewright_hf.media.decode import decode, measure
from tunewright_hf.media.images import FORMATS, MAX_PIXELS, MAX_RATIO
from tunewright_hf.media.shapes import Shape


def colour(path: Path, at: tuple[int, int] = (0, 0)) -> Any:
    return decode("image", str(path)).getpixel(at)


@pytest.mark.parametrize("format_", FORMATS)
def test_size_is_that_of_the_decoded_image(tmp_path: Path, format_: str) -> None:
    path = image(tmp_path / "a.img", (41, 17), format=format_)
    assert measure("image", path) == Shape("image", 41, 17)
    found = decode("image", path)
    assert (found.mode, found.size) == ("RGB", (41, 17))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "size", "left_top"),
    [
        (1, (40, 30), "red"),
        (3, (40, 30), "blue"),
        (6, (30, 40), "red"),
        (8, (30, 40), "blue"),
    ],
)
def test_exif_orientation_turns_size_and_pixels(
    tmp_path: Path, format_: str, orientation: int, size: tuple[int, int], left_top: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.img"
    halves().save(path, format=format_, exif=exif, quality=95)
    found = measure("image", str(path))
    assert (found.width, found.height) == size == decode("image", str(path)).size
    pixel = colour(path, (2, 2))
    assert ("red" if pixel[0] > 200 > 60 > pixel[2] else "blue") == left_top


def test_transparent_is_white(tmp_path: Path) -> None:
    hidden = Image.new("RGBA", (8, 8), (0, 0, 255, 0))
    hidden.putpixel((1, 0), (255, 0, 0, 255))
    hidden.save(tmp_path / "rgba.png")
    assert colour(tmp_path / "rgba.png") == (255, 255, 255)
    assert colour(tmp_path / "rgba.png", (1, 0)) == (255, 0, 0)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert colour(tmp_path / "p.png") == (255, 255, 255)
    assert colour(tmp_path / "p.png", (1, 0)) == (255, 0, 0)
    Image.new("LA", (8, 8), (50, 0)).save(tmp_path / "la.png")
    assert colour(tmp_path / "la.png") == (255, 255, 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_keep_their_brightness(tmp_path: Path, name: str) -> None:
    grey = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / name)
    found = np.asarray(decode("image", str(tmp_path / name)))
    assert (found[..., 0].ravel() == np.arange(256)).all()  # Pillow alone makes 255 of almost all
    assert (found[..., 0] == found[..., 2]).all()


def test_other_modes(tmp_path: Path) -> None:
    for mode, value, expected in (
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
    ):
        Image.new(mode, (1, 1), value).save(tmp_path / f"{mode}.png")
        assert colour(tmp_path / f"{mode}.png") == expected
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    red, green, blue = colour(tmp_path / "cmyk.jpg")
    assert red > 240 and green < 15 and blue < 15
    Image.new("F", (4, 4), 0.5).save(tmp_path / "f.tif")
    with pytest.raises(RowError, match=r"image 'f\.tif' has 32 bits a pixel"):
        decode("image", str(tmp_path / "f.tif"))


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(tmp_path: Path, format_: str) -> None:
    frames = [Image.new("RGB", (8, 8), name) for name in ("red", "green", "blue")]
    path = tmp_path / "a.img"
    frames[0].save(path, format=format_, save_all=True, append_images=frames[1:])
    red, green, blue = colour(path)
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((60_000, 60_000), f"has more than {MAX_PIXELS:,} pixels"),
        ((12_000, 12_000), f"has 12,000 x 12,000 pixels, more than {MAX_PIXELS:,}"),
        ((7_000, 7_000), "has 7,000 x 7,000 pixels, more than"),
        ((1_000, 3), f"has 1,000 x 3 pixels, a strip longer than 1 to {MAX_RATIO}"),
    ],
)
def test_limits_hold_before_anything_is_decoded(
    tmp_path: Path, size: tuple[int, int], said: str
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    start = time.process_time()
    for read in (measure, decode):
        with pytest.raises(RowError) as raised:
            read("image", str(path))
        assert f"image 'bomb.png' {said}" in raised.value.problem
    assert time.process_time() - start < 0.5


NO_IMAGES = {
    "text.png": b"text",
    "a.svg": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg>&e;</svg>',
    "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a.jpg": b"\xff\xd8\xff\xe0 not a picture",
    "a.wav": b"RIFF\x24\0\0\0WAVEfmt ",
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(NO_IMAGES[name])
    with pytest.raises(RowError) as raised:
        measure("image", str(tmp_path / name))
    assert "\n" not in raised.value.problem and str(tmp_path) not in raised.value.problem
    said = "cannot be read" if name == "a.jpg" else "is not an image that is read here: JPEG, PNG"
    assert f"image {name!r} {said}" in raised.value.problem


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    problems = {"empty.png": "is empty", "missing.png": "cannot be read: No such file"}
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe.png")
        problems |= {"pipe.png": "is not a regular file", "/dev/zero": "is not a regular file"}
    for name, said in problems.items():
        with pytest.raises(RowError, match=said):
            measure("image", str(tmp_path / name))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_file_is_measured_and_not_decoded(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "cut.img"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(path, format=format_)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if format_ != "WEBP":  # whose header says how long the file is
        assert measure("image", str(path)) == Shape("image", 200, 200)
    with pytest.raises(RowError, match=r"image 'cut\.img' (cannot be read|is not)"):
        decode("image", str(path))


def test_a_png_is_measured_without_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow decodes a PNG without EXIF to look for some behind its pixels."""
    path = image(tmp_path / "a.png", (50, 50))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert measure("image", path) == Shape("image", 50, 50)
