"""Inputs of Llama 3.2 Vision beside those of its processor."""

from typing import Any

import torch
from torch import Tensor
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from tunewright import RunError

__all__ = ["cross_attention"]


def cross_attention(inputs: dict[str, Tensor], labels: Tensor, processor: Any) -> dict[str, Tensor]:
    """Mask of image tiles that each token attends to, (B, T, images, tiles), by the image tokens
    in the rows. Raises RunError for rows with unequal numbers of images: tokens before the first
    image attend to all of the batch's slots alike, those of missing images too."""
    if "aspect_ratio_mask" not in inputs:
        return {}
    rows, tiles = inputs["input_ids"].tolist(), inputs["aspect_ratio_mask"].sum(-1)
    own = [get_cross_attention_token_mask(row, processor.image_token_id) for row in rows]
    counts = sorted({len(each) for each in own})
    if len(counts) > 1:
        problem = f"rows of a batch have {counts[0]} to {counts[-1]} images"
        hint = "per_device_train_batch_size: 1 with batching: random, or rows with as many images"
        raise RunError(problem, place="data", hint=hint)
    dense = convert_sparse_cross_attention_mask_to_dense(
        own,
        num_tiles=tiles.tolist(),
        max_num_tiles=processor.image_processor.max_image_tiles,
        length=labels.shape[1],
    )
    return {"cross_attention_mask": torch.as_tensor(dense)}
