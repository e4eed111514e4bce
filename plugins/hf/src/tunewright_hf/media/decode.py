"""Media files: how large they are, from their headers, and what is in them, decoded within
limits."""

from collections.abc import Sequence

from tunewright_hf.media.files import Source
from tunewright_hf.media.shapes import Content, MediaKind, Shape

__all__ = ["decode", "measure"]


def measure(kind: MediaKind, path: Source) -> Shape:
    """Size of a medium, without decoding it (audio other than WAV and FLAC is decoded to count its
    samples). Raises RowError, which names the file, if it cannot be read or exceeds a limit."""
    if kind == "image":
        from tunewright_hf.media.images import measure_image

        return measure_image(path)
    from tunewright_hf.media import streams

    return streams.measure_video(path) if kind == "video" else streams.measure_audio(path)


def decode(kind: MediaKind, path: Source, frames: Sequence[int] = ()) -> Content:
    """The medium itself. frames: numbers of a video's frames, ascending; empty: all. Raises
    RowError as `measure` does, and if the file is damaged."""
    if kind == "image":
        from tunewright_hf.media.images import decode_image

        return decode_image(path)
    from tunewright_hf.media import streams

    if kind == "video":
        return streams.decode_video(path, frames)
    return streams.decode_audio(path)
