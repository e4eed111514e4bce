"""Decompression and re-encoding of files as streams, a small piece in memory at a time."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any

_CHUNK = 1 << 16  # bytes
_XZ_MEMORY = 1 << 28  # maximum bytes of an .xz file's dictionary; xz -9 needs 65 MiB

#: errors of broken compressed data
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)


def unpacked(raw: Any, packed: str) -> io.BufferedReader:
    """Decompress a binary stream while it is read. packed: .gz, .bz2, .xz, .zst, or empty."""
    if packed == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw))  # type: ignore[arg-type]  # has all that is needed
    if packed == ".bz2":
        return io.BufferedReader(_Unpacking(raw, bz2.BZ2Decompressor))
    if packed == ".xz":
        return io.BufferedReader(
            _Unpacking(raw, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
        )
    if packed == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(raw, "zstd"))
    return raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)


def recoded(stream: io.BufferedReader, encoding: str) -> io.BufferedReader:
    """Convert text in another encoding to UTF-8. Reading raises UnicodeDecodeError."""
    return io.BufferedReader(_Recoding(stream, encoding))


class _Unpacking(io.RawIOBase):
    """Decompressed bytes of concatenated streams, which bz2 and xz files may hold."""

    def __init__(self, raw: Any, new: Callable[[], Any]) -> None:
        self._raw, self._new = raw, new
        self._unpack = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._unpack.eof:  # zero padding may follow, then another stream
                packed = self._unpack.unused_data
                while not (packed := packed.lstrip(b"\0")):
                    if not (packed := self._raw.read(_CHUNK)):
                        return 0
                self._unpack = self._new()
            elif self._unpack.needs_input:
                if not (packed := self._raw.read(_CHUNK)):
                    raise EOFError("the packed data ends in the middle")
            else:
                packed = b""
            if data := self._unpack.decompress(packed, len(buffer)):
                buffer[: len(data)] = data
                return len(data)


class _Recoding(io.RawIOBase):
    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._text.read(_CHUNK).encode("utf-8"))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
