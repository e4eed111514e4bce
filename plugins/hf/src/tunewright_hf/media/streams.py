"""Videos and audio: their size, and their frames and samples. Read by PyAV, which brings FFmpeg's
libraries."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from tunewright import RowError, RunError
from tunewright_hf.media.files import Source, opened, shown, unreadable
from tunewright_hf.media.movie_tables import check_tables
from tunewright_hf.media.shapes import RATE, MediaKind, Shape

__all__ = [
    "CONTAINERS",
    "MAX_DECODED",
    "MAX_FRAMES",
    "MAX_PIXELS",
    "MAX_SECONDS",
    "decode_audio",
    "decode_video",
    "measure_audio",
    "measure_video",
]

#: FFmpeg's readers that may be used. Others open further files and addresses that a file names:
#: playlists, scripts
CONTAINERS = {
    "video": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,gif,ogg",
    "audio": "wav,flac,mp3,ogg,aac,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aiff,w64",
}
MAX_FRAMES = 250_000  # that a video file may hold: more than 2 hours at 30 frames per second
MAX_PIXELS = 16_777_216  # of one frame
MAX_DECODED = 400_000_000  # pixels of all frames of a video that are decoded
MAX_SECONDS = 3600  # of audio
_EXACT = ("pcm_", "flac")  # codecs whose number of samples stands in the header


# ---- video ---------------------------------------------------------------------------------------


def measure_video(path: Source) -> Shape:
    """Frames, their size as seen, and frames per second, from the header and the first frame.
    Frames are counted in the file where its header has no number. Raises RowError if it cannot be
    read, or has more than MAX_FRAMES, or frames of more than MAX_PIXELS."""
    with _stream("video", path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise RowError(f"video {shown(path)} does not say its frames per second")
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise _large(path, stream.codec_context)
        frames = stream.frames
        first = next(container.decode(stream), None)
        if first is None:
            raise RowError(f"video {shown(path)} has no frame")
        if not frames:
            container.seek(0, stream=stream)
            packets = (packet for packet in container.demux(stream) if packet.size)
            frames = sum(1 for _ in islice(packets, MAX_FRAMES + 1))
        if frames > MAX_FRAMES:
            raise RowError(f"video {shown(path)} has more than {MAX_FRAMES:,} frames")
        width, height = first.width, first.height
        if first.rotation % 180:
            width, height = height, width
        return Shape("video", width, height, frames, float(rate))


def decode_video(path: Source, frames: Sequence[int] = ()) -> np.ndarray:
    """Frames with these numbers (from 0, ascending; all without any) as uint8 (frames, height,
    width, 3), RGB, upright. Raises RowError if the file ends before, or they have more than
    MAX_DECODED pixels."""
    wanted, found = set(frames), dict[int, np.ndarray]()
    with _stream("video", path) as (container, stream):
        size = stream.codec_context.width * stream.codec_context.height
        if size > MAX_PIXELS:
            raise _large(path, stream.codec_context)
        for number, frame in enumerate(container.decode(stream)):
            if not wanted or number in wanted:
                found[number] = _upright(frame)
            if len(found) * size > MAX_DECODED:
                hint = "set family.video_max_frames lower"
                raise RowError(
                    f"video {shown(path)}: the frames that are used have more than "
                    f"{MAX_DECODED:,} pixels",
                    hint=hint,
                )
            if wanted and len(found) == len(wanted):
                break
    if not found or len(found) < len(wanted):
        expected = f"frame {max(wanted) + 1} is used" if wanted else "a frame is expected"
        raise RowError(f"video {shown(path)} ends after {len(found)} frames, and {expected}")
    return np.stack([found[number] for number in frames or found])


def _upright(frame: Any) -> np.ndarray:
    """RGB pixels (height, width, 3), turned as the file says, in steps of 90°."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, round(frame.rotation / 90)) if frame.rotation else pixels


def _large(path: Source, codec: Any) -> RowError:
    size = f"{codec.width:,} x {codec.height:,}"
    return RowError(
        f"video {shown(path)} has frames of {size} pixels, more than {MAX_PIXELS:,}",
        hint="make it smaller",
    )


# ---- audio ---------------------------------------------------------------------------------------


def measure_audio(path: Source) -> Shape:
    """Number of mono samples at RATE. It stands in the header of WAV and FLAC; of other files it is
    counted by decoding them. Raises RowError if it cannot be read, or is longer than
    MAX_SECONDS."""
    with _stream("audio", path) as (container, stream):
        rate = stream.codec_context.sample_rate
        if stream.codec_context.name.startswith(_EXACT) and stream.duration:
            count = round(stream.duration * stream.time_base * rate)
            _check_length(path, count, rate)
        else:
            count = sum(frame.samples for frame in _sounds(path, container, stream))
        return Shape("audio", samples=_resampled(count, rate))


def decode_audio(path: Source) -> np.ndarray:
    """Mono samples at RATE as float32 (samples,), in [-1, 1]; as many as `measure_audio` says.
    Raises RowError as it does."""
    import av

    with _stream("audio", path) as (container, stream):
        rate, count = stream.codec_context.sample_rate, 0
        # the mean of the channels is taken here: FFmpeg's own mono is louder than each of them
        resampler = av.AudioResampler(format="fltp", rate=RATE)
        pieces = []
        for frame in _sounds(path, container, stream):
            count += frame.samples
            pieces += [part.to_ndarray().mean(0) for part in resampler.resample(frame)]
        if pieces:
            pieces += [part.to_ndarray().mean(0) for part in resampler.resample(None)]
    if not count:
        raise RowError(f"audio {shown(path)} has no sound")
    samples = np.concatenate(pieces).astype(np.float32, copy=False)
    wanted = _resampled(count, rate)  # a resampler's own rounding differs by a few samples
    samples = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    return np.clip(samples, -1.0, 1.0)


def _sounds(path: Source, container: Any, stream: Any) -> Iterator[Any]:
    """The decoded frames of audio, up to MAX_SECONDS."""
    count, rate = 0, stream.codec_context.sample_rate
    for frame in container.decode(stream):
        count += frame.samples
        _check_length(path, count, rate)
        yield frame


def _check_length(path: Source, count: int, rate: int) -> None:
    if not rate or count > MAX_SECONDS * rate:
        raise RowError(
            f"audio {shown(path)} is longer than {MAX_SECONDS:,} seconds", hint="split it"
        )


def _resampled(count: int, rate: int) -> int:
    return -(-count * RATE // rate)


# ---- files ---------------------------------------------------------------------------------------


@contextmanager
def _stream(kind: MediaKind, path: Source) -> Iterator[tuple[Any, Any]]:
    """The opened container, and its first stream of this kind."""
    try:
        import av
    except ImportError as error:
        raise RunError(
            "video and audio need the package av", hint="pip install 'tunewright-hf[media]'"
        ) from error
    with opened(kind, path) as file:
        try:
            check_tables(file)
            options = {"format_whitelist": CONTAINERS[kind], "protocol_whitelist": "none"}
            with av.open(file, options=options) as container:
                stream = next(iter(getattr(container.streams, kind)), None)
                if stream is None:
                    raise RowError(f"{kind} {shown(path)} has no {kind} in it")
                if stream.codec_context is None:
                    raise RowError(f"{kind} {shown(path)} has a codec that FFmpeg does not know")
                stream.codec_context.thread_count = 1  # there is one process per core
                yield container, stream
        except (av.FFmpegError, ValueError, OverflowError, ZeroDivisionError) as error:
            raise unreadable(kind, path, error) from error
