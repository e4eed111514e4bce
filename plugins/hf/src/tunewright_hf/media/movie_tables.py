"""Tables of MP4 and QuickTime files (ISO/IEC 14496-12), which may claim billions of frames in a few
bytes: FFmpeg takes memory for all of them when it opens the file."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

__all__ = ["MAX_ENTRIES", "check_tables"]

MAX_ENTRIES = 4_000_000  # frames of all tracks: 30 hours of video, or of audio in pieces
_MAX_BOXES = 1_000_000
_PIECE = 1024  # samples of uncompressed audio that FFmpeg lists as one
_WITHIN = b"moov trak mdia minf stbl moof traf udta edts dinf mvex wave tapt".split()
_HANDLERS = (b"soun", b"vide", b"subp", b"clcp")  # others, such as of QuickTime's references
#: trun's flags of fields that each frame has
_OF_EACH_FRAME = (0x100, 0x200, 0x400, 0x800)


@dataclass
class _Track:
    handler: bytes = b""
    frames: int = 0  # as stsz claims
    length: int = 0  # bytes of each frame; 0: in a table of the file
    chunks: int = 0
    #: first chunk and frames in each, from there on, as big-endian numbers (N, 3)
    per_chunk: Any = field(default_factory=lambda: np.zeros((0, 3), ">u4"))
    #: number of entries of stts, and frames' duration in the first one, in ticks of the clock
    ticks: set[tuple[int, int]] = field(default_factory=set)

    def entries(self) -> int:
        """Entries of the list that FFmpeg makes of the track."""
        if not (self.length and self.handler == b"soun" and self.ticks == {(1, 1)}):
            return self.frames
        # uncompressed audio
        first = np.append(self.per_chunk[:, 0], self.chunks + 1).astype(float)
        pieces = 1 + self.per_chunk[:, 1] // _PIECE
        return int((np.diff(first).clip(0) * pieces).sum())


def check_tables(file: BinaryIO) -> None:
    """Raise ValueError if the file claims more frames than it can hold, or than MAX_ENTRIES. Files
    of other formats have no such tables. The file is left at its start."""
    size = file.seek(0, os.SEEK_END)
    tracks, fragments = [_Track()], 0
    for name, start, end in _boxes(file, size):
        if name == b"cmov":
            raise ValueError("its header is compressed")
        if name == b"trak":
            tracks.append(_Track())
        elif name == b"trun":
            fragments += _fragment(file, start, end)
        else:
            _read_table(file, name, start, end, tracks[-1])
    if any(track.frames * track.length > size for track in tracks):
        raise ValueError("it claims more frames than it can hold")
    claimed = fragments + sum(track.entries() for track in tracks)
    if claimed > MAX_ENTRIES:
        raise ValueError(f"it claims {claimed:,} frames, more than {MAX_ENTRIES:,}")
    file.seek(0)


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, and first and last byte of the content, of all boxes that may lead to tables."""
    ends, at = [size], 0
    for _ in range(_MAX_BOXES):
        while ends and at + 8 > ends[-1]:
            at = ends.pop()
        if not ends:
            return
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            length, head = int.from_bytes(file.read(8), "big"), 16
        end = min(at + length, ends[-1]) if length else ends[-1]
        if length and length < head:
            at = ends.pop()
            continue
        yield name, at + head, end
        if name in _WITHIN:
            ends.append(end)
            at += head
        else:
            at = end
    raise ValueError(f"it has more than {_MAX_BOXES:,} boxes")


def _read_table(file: BinaryIO, name: bytes, start: int, end: int, track: _Track) -> None:
    """Read what a box says of the size of its track's tables."""
    if name == b"hdlr":
        handler = _bytes(file, start + 8, 4)
        track.handler = handler if handler in _HANDLERS else track.handler
    elif name == b"stsz":
        length, frames = _numbers(file, start + 4, 2)
        listed = frames if length else min(frames, (end - start - 12) // 4)
        track.length, track.frames = max(track.length, length), max(track.frames, listed)
    elif name in (b"stco", b"co64"):
        (chunks,) = _numbers(file, start + 4, 1)
        track.chunks = max(track.chunks, min(chunks, (end - start - 8) // 4))
    elif name == b"stts":
        entries, _, ticks = _numbers(file, start + 4, 3)
        track.ticks.add((entries, ticks))
    elif name == b"stsc":
        (entries,) = _numbers(file, start + 4, 1)
        entries = max(0, min(entries, (end - start - 8) // 12, MAX_ENTRIES // 16))
        numbers = np.frombuffer(_bytes(file, start + 8, 12 * entries), ">u4")
        track.per_chunk = numbers.reshape(-1, 3)


def _fragment(file: BinaryIO, start: int, end: int) -> int:
    """Frames of a fragment."""
    flags, count = _numbers(file, start, 2)
    listed = 4 * sum(bool(flags & each) for each in _OF_EACH_FRAME)
    if count * listed > end - start:
        raise ValueError("it claims more frames than a fragment lists")
    return count


def _numbers(file: BinaryIO, start: int, count: int) -> tuple[int, ...]:
    """Numbers of four bytes; zeros where the file ends."""
    return struct.unpack(f">{count}I", _bytes(file, start, 4 * count))


def _bytes(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count).ljust(count, b"\0")
