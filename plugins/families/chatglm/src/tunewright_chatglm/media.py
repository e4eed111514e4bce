"""Inputs of GLM-4V beside those of its processor."""

from typing import Any

import transformers
from torch import Tensor

from tunewright import RunError

__all__ = ["one_kind"]


def one_kind(inputs: dict[str, Tensor], labels: Tensor, processor: Any) -> dict[str, Tensor]:
    """Nothing more. Raises RunError for a batch with images and videos, which have the same token:
    transformers counts both as images."""
    if "pixel_values" in inputs and "pixel_values_videos" in inputs:
        version = transformers.__version__
        problem = f"GLM-4V in transformers {version} takes no batch with images and videos"
        hint = "per_device_train_batch_size: 1 with batching: random, and no row with both"
        raise RunError(problem, place="data", hint=hint)
    return {}
