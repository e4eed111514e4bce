"""A processor as Kimi-VL brings it, written for transformers 4: patches of all images one below the
other, their grids, and a text in which each placeholder is repeated."""

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

PATCH, MERGE = 14, 2


class KimiVLImageProcessor(BaseImageProcessor):
    model_input_names = ("pixel_values", "image_grid_hws")

    def __init__(self, patch_size=PATCH, merge_kernel_size=(MERGE, MERGE), **kw):
        super().__init__(**kw)
        self.patch_size, self.merge_kernel_size = patch_size, list(merge_kernel_size)

    def preprocess(self, images, return_tensors=None):
        patches, grids = [], []
        for image in images:
            side = PATCH * MERGE
            width, height = (max(1, round(size / side)) * side for size in image.size)
            pixels = (
                np.asarray(image.convert("RGB").resize((width, height)), np.float32) / 127.5 - 1
            )
            rows, columns = height // PATCH, width // PATCH
            cut = torch.from_numpy(pixels).permute(2, 0, 1)
            cut = cut.reshape(3, rows, PATCH, columns, PATCH).permute(1, 3, 0, 2, 4)
            patches.append(cut.reshape(rows * columns, 3, PATCH, PATCH))
            grids.append([rows, columns])
        data = {"pixel_values": torch.cat(patches), "image_grid_hws": np.array(grids)}
        return BatchFeature(data, tensor_type=return_tensors)


class KimiVLProcessor(ProcessorMixin):
    attributes = ("image_processor", "tokenizer")
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        self.image_token = "<|media_pad|>"
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, images=None, text=None, return_tensors=None):
        tensors = self.image_processor(images, return_tensors=return_tensors) if images else {}
        made = []
        grids = iter(tensors["image_grid_hws"] if images else ())
        for each in text:
            while self.image_token in each:
                rows, columns = next(grids)
                count = int(rows * columns) // MERGE**2
                each = each.replace(self.image_token, "<|placeholder|>" * count, 1)
            made.append(each.replace("<|placeholder|>", self.image_token))
        return BatchFeature({**self.tokenizer(made, return_tensors=return_tensors), **tensors})
