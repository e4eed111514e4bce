"""Small images, videos and sounds, made on the spot."""

import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def image(path: Path, size: tuple[int, int] = (40, 30), colour: Any = "red", **save: Any) -> str:
    Image.new("RGB", size, colour).save(path, **save)
    return str(path)


def halves(size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Red on the left, blue on the right."""
    made = Image.new("RGB", size, "blue")
    made.paste("red", (0, 0, size[0] // 2, size[1]))
    return made


def png(width: int, height: int) -> bytes:
    """A PNG that claims this size, and has hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def video(
    path: Path,
    frames: int = 20,
    size: tuple[int, int] = (64, 48),
    fps: int = 10,
    codec: str = "mpeg4",
    turn: int = 0,
) -> str:
    """A video whose frame number n is grey of brightness 10 n, and whose left half is red in the
    first one if it is turned."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if turn:
            stream.set_display_rotation(turn)
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 10 * number % 256, np.uint8)
            if turn:
                pixels[:, : size[0] // 2] = (255, 0, 0)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return str(path)


def tone(seconds: float = 0.5, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    times = np.arange(int(seconds * rate)) / rate
    found: np.ndarray = 0.5 * np.sin(2 * np.pi * hertz * times)
    return found.astype(np.float32)


def wav(path: Path, seconds: float = 0.5, rate: int = 16_000, channels: int = 1) -> str:
    samples = (tone(seconds, rate) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(samples, channels).tobytes())
    return str(path)


def encoded(path: Path, codec: str, seconds: float = 0.5, rate: int = 44_100) -> str:
    """A tone in a file of another format, such as mp3."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=rate, frame_size=1152
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(part):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return str(path)
