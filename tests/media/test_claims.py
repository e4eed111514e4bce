"""Rows 32 and 33 of the record of attacks: small files that claim to be huge, and huge data: URLs.
They are refused in one line, in little time and memory."""

import struct
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from media.running import build, write
from media.samples import encoded, video, wav
from tunewright import RowError
from tunewright_hf.media.data_urls import of_url
from tunewright_hf.media.decode import decode, measure
from tunewright_hf.media.images import MAX_PIXELS
from tunewright_hf.media.shapes import Shape

pytest.importorskip("av", reason="reads videos and audio")

SECONDS = 1_000_000  # 11 days
MANY = 25 * SECONDS  # frames
LIMIT = 30.0  # seconds, for one that takes none on an idle machine
WITHIN = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int]]:
    """Name and place of the boxes of an MP4."""
    at, end = start, len(data) if end is None else end
    while at < end:
        length, name = struct.unpack(">I4s", data[at : at + 8])
        yield name, at
        if name in WITHIN:
            yield from boxes(data, at + 8, at + length)
        at += length


def changed(path: Path, *changes: tuple[bytes, int, int]) -> str:
    """The MP4 with other numbers. changes: box, place in it, and number."""
    data = bytearray(path.read_bytes())
    found = dict(boxes(bytes(data)))
    for name, place, number in changes:
        data[found[name] + place : found[name] + place + 4] = struct.pack(">I", number)
    path.write_bytes(data)
    return str(path)


def memory() -> int:
    """Largest resident memory of this process until now, in MB."""
    resource = pytest.importorskip("resource", reason="of POSIX")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // unit


def refused(kind: str, path: str, said: str) -> None:
    """By both readers, in one line."""
    for read in (measure, decode):
        before, start = memory(), time.monotonic()
        with pytest.raises(RowError, match=said) as raised:
            read(kind, path)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
        assert memory() - before < 64 and time.monotonic() - start < LIMIT


def test_an_mp4_that_claims_to_last_11_days(tmp_path: Path) -> None:
    """Its frames are counted, whatever the header says of its duration."""
    path = Path(video(tmp_path / "a.mp4", 3))
    clock = dict(boxes(path.read_bytes()))
    durations = [(b"mvhd", 24, 1000), (b"tkhd", 28, 1000), (b"mdhd", 24, 1000)]
    assert {name for name, _, _ in durations} <= clock.keys()
    claims = changed(path, *((name, place, 1000 * SECONDS) for name, place, _ in durations))
    found = measure("video", claims)
    assert found == Shape("video", 64, 48, 3, found.fps) and found.seconds < 10
    assert decode("video", claims).shape == (3, 48, 64, 3)


def test_an_mp4_that_claims_25_million_frames(tmp_path: Path) -> None:
    """FFmpeg would take 900 MB to list those of a file of 1 KB, and 100 GB for four billion."""
    path = Path(video(tmp_path / "a.mp4", 3))
    assert path.stat().st_size < 2000
    for count in (MANY, 2**32 - 1):
        one_byte_each = [(b"stsz", 12, 1), (b"stsz", 16, count), (b"stsc", 20, count)]
        claims = changed(path, *one_byte_each, (b"stts", 16, count))
        refused("video", claims, r"'a\.mp4' cannot be read: it claims more frames than it can hold")
        refused("audio", claims, r"'a\.mp4' cannot be read: it claims more frames than it can hold")


def test_a_table_that_is_not_in_the_file(tmp_path: Path) -> None:
    """A table of frames' sizes which the file does not have is not believed."""
    path = Path(encoded(tmp_path / "a.m4a", "aac"))
    refused("audio", changed(path, (b"stsz", 16, 2**31)), r"'a\.m4a' (cannot be read|has no)")


def test_uncompressed_audio_that_claims_years(tmp_path: Path) -> None:
    """FFmpeg lists it in pieces, which can be as many."""
    path = Path(encoded(tmp_path / "a.mov", "pcm_s16le"))
    assert measure("audio", str(path)).samples == pytest.approx(8000, abs=8)
    refused("audio", changed(path, (b"stsc", 20, 2**32 - 1)), r"claims 4,\d{3},\d{3} frames, more")


def test_long_uncompressed_audio_is_read(tmp_path: Path) -> None:
    """It has more samples than a file may have frames, which FFmpeg lists in pieces."""
    path = Path(encoded(tmp_path / "a.mov", "pcm_s16le", 100))
    assert measure("audio", str(path)).samples == pytest.approx(1_600_000, abs=8)


def test_a_fragment_that_claims_25_million_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    video(path, 3)
    for flags, count, said in (
        (0, MANY - 3, "it claims 25,000,000 frames, more than 4,000,000"),
        (0x200, MANY, "it claims more frames than a fragment lists"),
    ):
        run = struct.pack(">I4sII", 16, b"trun", flags, count)
        traf = struct.pack(">I4s", 24, b"traf") + run
        path.write_bytes(path.read_bytes() + struct.pack(">I4s", 32, b"moof") + traf)
        refused("video", str(path), f"cannot be read: {said}")


def test_files_that_no_box_ends(tmp_path: Path) -> None:
    """Boxes of no length, and more than there can be."""
    path = tmp_path / "a.mp4"
    path.write_bytes(struct.pack(">I4s", 8, b"free") * 1_000_001)
    refused("video", str(path), r"cannot be read: it has more than 1,000,000 boxes")
    for length in (0, 1, 2, 7, 2**31):
        path.write_bytes(struct.pack(">I4s", length, b"moov"))
        refused("video", str(path), r"'a\.mp4' (cannot be read|has no)")


def gif(path: Path, frames: int) -> str:
    """An animation of 1 x 1."""
    control, place = b"\x21\xf9\x04\0\x01\0\0\0", b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    frame = control + place + b"\x02\x02\x44\x01\0"
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    path.write_bytes(head + frame * frames + b";")
    return str(path)


def test_a_gif_of_a_million_frames(tmp_path: Path) -> None:
    """As a video it has too many; as an image it is its first frame, and no other is read."""
    path = gif(tmp_path / "a.gif", 1_000_000)
    start = time.monotonic()
    with pytest.raises(RowError, match=r"video 'a\.gif' has more than 250,000 frames"):
        measure("video", path)
    assert decode("video", path, (0, 2)).shape == (2, 1, 1, 3)
    assert time.monotonic() - start < LIMIT
    start = time.monotonic()
    assert measure("image", path) == Shape("image", 1, 1)
    assert decode("image", path).size == (1, 1)
    assert time.monotonic() - start < LIMIT
    few = gif(tmp_path / "b.gif", 5)
    assert measure("video", few).frames == 5


def test_a_gif_that_claims_a_large_canvas(tmp_path: Path) -> None:
    path = Path(gif(tmp_path / "a.gif", 3))
    data = bytearray(path.read_bytes())
    data[6:10] = struct.pack("<HH", 60_000, 60_000)
    path.write_bytes(data)
    refused("image", str(path), f"image 'a.gif' has more than {MAX_PIXELS:,} pixels")
    refused("video", str(path), r"video 'a\.gif' (has frames of|cannot be read)")


def test_a_wav_that_claims_a_billion_samples(tmp_path: Path) -> None:
    path = Path(wav(tmp_path / "a.wav"))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 2_000_000_000)
    path.write_bytes(data)
    before = memory()
    assert measure("audio", str(path)).samples == 8000
    assert decode("audio", str(path)).shape == (8000,)
    assert memory() - before < 64


# ---- data: URLs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["", ";base64"], ids=["percent", "base64"])
def test_a_data_url_of_200_mb_is_refused_before_it_is_decoded(more: str) -> None:
    url = f"data:image/png{more}," + "A" * 200_000_000
    tracemalloc.start()
    try:
        with pytest.raises(RowError, match=r"of 200,000,0\d\d characters is larger than 64 MiB"):
            of_url(url, "image")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_row_with_a_data_url_of_200_mb(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="transformers' processors of images and video")
    url = "data:image/png;base64," + "A" * 200_000_000
    part = {"type": "image_url", "image_url": {"url": url}}
    asked, said = {"role": "user", "content": [part]}, {"role": "assistant", "content": "yes"}
    write(tmp_path, {"messages": [asked, said]})
    with pytest.raises(RowError, match=r"rows\.jsonl:1: has a record of more than 8,388,608 bytes"):
        build(tmp_path)
    with pytest.raises(RowError, match="is larger than 64 MiB") as raised:
        build(tmp_path, dataset={"max_record_bytes": 2**28})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
    assert not list(tmp_path.glob("cache/**/media/*/*"))
