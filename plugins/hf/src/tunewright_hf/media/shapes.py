"""Shapes of media: what decides how many tokens a medium takes."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["RATE", "Content", "MediaKind", "Shape"]

RATE = 16_000  # audio samples per second, after decoding

MediaKind: TypeAlias = Literal["image", "video", "audio"]

#: a decoded medium. An image: PIL.Image in mode RGB, turned as its EXIF says. A video: uint8 array
#: (frames, height, width, 3). Audio: float32 array (samples,), mono, at RATE, in [-1, 1]
Content: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a medium, as `decode.measure` reads it from the file. Fields that do not apply are 0.

    A video's frames are those that the file holds; which of them the model sees is up to
    `expander.MediaProcessor.frames`.
    """

    kind: MediaKind
    width: int = 0  # pixels as seen, after EXIF rotation
    height: int = 0
    frames: int = 0
    fps: float = 0.0  # frames per second of the file
    samples: int = 0  # mono samples at RATE

    @property
    def seconds(self) -> float:
        """Duration of a video or audio; 0 for images."""
        if self.kind == "audio":
            return self.samples / RATE
        return self.frames / self.fps if self.fps else 0.0
