"""Bytes that should be text in UTF-8."""

from tunewright import RowError

BOM = b"\xef\xbb\xbf"


def not_utf8(data: bytes, start: int, name: str, line: int) -> RowError:
    """The error of a text whose byte at `start` is not UTF-8."""
    before = data[max(0, start - 20) : start].decode("utf-8", "replace")
    return RowError(
        f"byte 0x{data[start]:02x} after {before!r} is not UTF-8",
        place=f"{name}:{line}",
        hint="save the file as UTF-8, or name its encoding, such as `encoding: latin-1`",
    )
