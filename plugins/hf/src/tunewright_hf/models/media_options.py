"""Options of families for models with media."""

from pydantic import Field

from tunewright import PluginOptions

__all__ = ["MediaOptions"]


class MediaOptions(PluginOptions):
    """Media parts that are loaded and trained, and how large media are to the model. Sizes are
    set in the processor, and saved with the result."""

    media: bool = True
    """Load media towers and the processor, if the model has them. false: text alone, with the
    language model's own class if transformers has one."""
    train_tower: bool = False
    """Train media towers too: the adapter treats them like the language model's layers."""
    train_projector: bool = False
    """Train the projector between towers and language model too."""
    image_max_pixels: int | None = Field(None, ge=784)
    """Larger images are scaled down to this number of pixels. Default: that of the checkpoint, at
    most 1003520. Only for models whose number of image tokens depends on the size."""
    image_min_pixels: int | None = Field(None, ge=784)
    """Smaller images are scaled up to this number of pixels. Default: that of the checkpoint."""
    video_fps: float | None = Field(None, gt=0, le=60)
    """Frames per second that the model sees of a video. Default: that of the checkpoint, else
    2."""
    video_max_frames: int = Field(128, ge=2, le=4096)
    """Maximum number of frames that the model sees of a video."""
    video_max_pixels: int | None = Field(None, ge=784)
    """Maximum pixels of a video: per frame, or of all its frames, whichever the processor limits.
    Default: that of the checkpoint."""
