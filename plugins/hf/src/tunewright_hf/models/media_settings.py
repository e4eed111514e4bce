"""Set image and video sizes in a processor."""

from collections.abc import Callable
from typing import Any

from tunewright import RecipeError
from tunewright_hf.models.media_options import MediaOptions

__all__ = ["configure"]

MAX_PIXELS = 1_003_520  # 1280 tokens of 28 x 28 pixels: checkpoints allow up to 16,384 tokens
_FPS = 2.0
_AREA = 20_000  # a larger `longest_edge` is no length of a side, but a number of pixels


def configure(processor: Any, options: MediaOptions, notify: Callable[[str, str], None]) -> None:
    """Apply the options to the processor, so that preparation, training, chat and the saved
    processor_config.json agree. Raises RecipeError if the processor has no such setting."""
    image = getattr(processor, "image_processor", None)
    video = getattr(processor, "video_processor", None)
    largest = options.image_max_pixels
    own = _area(image)
    if largest is None and own is not None and own > MAX_PIXELS:
        largest = MAX_PIXELS
        notify(
            f"images are scaled down to {MAX_PIXELS:,} pixels, the checkpoint allows {own:,}: set "
            "family.image_max_pixels for more",
            "info",
        )
    _set_size(image, "longest_edge", largest, "image_max_pixels")
    _set_size(image, "shortest_edge", options.image_min_pixels, "image_min_pixels")
    _set_size(video, "longest_edge", options.video_max_pixels, "video_max_pixels")
    if video is None:
        if options.video_fps is not None:
            raise RecipeError("the model takes no video", place="family.video_fps")
        return
    if options.video_fps is not None or (video.fps is None and video.num_frames is None):
        video.fps, video.num_frames = options.video_fps or _FPS, None
    video.max_frames = min(getattr(video, "max_frames", None) or 4096, options.video_max_frames)
    if getattr(video, "cap_pixels_per_frame", False) is None:  # of Qwen2-VL: as its makers do
        video.cap_pixels_per_frame = True


def _area(part: Any) -> int | None:
    """Maximum pixels, of a processor that limits these and not the length of a side."""
    size = getattr(part, "size", None) or {}
    longest = size.get("longest_edge")
    return longest if longest is not None and longest > _AREA else None


def _set_size(part: Any, edge: str, pixels: int | None, option: str) -> None:
    if pixels is None:
        return
    if _area(part) is None:
        name = type(part).__name__ if part is not None else "the processor"
        raise RecipeError(
            f"{name} does not limit the number of pixels: there is nothing to set",
            place=f"family.{option}",
            hint="leave it out",
        )
    # transformers makes a SizeDict of some, which is no mapping
    part.size = type(part.size)(**{**dict(part.size), edge: pixels})
