"""Images as MiniCPM-V 2.6's processor makes them: an overview and, of large ones, slices; the
patches of each side by side, in lists by row."""

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

PATCH, SCALE = 14, 56


class MiniCPMVImageProcessor(BaseImageProcessor):
    model_input_names = ("pixel_values",)

    def __init__(self, max_slice_nums=4, image_feature_size=4, use_image_id=True, **kw):
        super().__init__(**kw)
        self.max_slice_nums, self.image_feature_size = max_slice_nums, image_feature_size
        self.use_image_id = use_image_id

    def get_sliced_grid(self, image_size):
        wide, high = (min(2, max(1, round(side / SCALE))) for side in image_size)
        return [wide, high] if wide * high > 1 else None

    def get_slice_image_placeholder(
        self, image_size, image_idx=0, max_slice_nums=None, use_image_id=None
    ):
        inside = "<unk>" * self.image_feature_size
        text = f"<image_id>{image_idx}</image_id>" if self.use_image_id else ""
        text += f"<image>{inside}</image>"
        if grid := self.get_sliced_grid(image_size):
            text += "\n".join([f"<slice>{inside}</slice>" * grid[0]] * grid[1])
        return text

    def _pieces(self, image):
        yield image.resize((SCALE, max(PATCH, round(image.height / image.width * 4) * PATCH)))
        if grid := self.get_sliced_grid(image.size):
            wide, high = image.width // grid[0], image.height // grid[1]
            for row in range(grid[1]):
                for column in range(grid[0]):
                    at = (column * wide, row * high)
                    cut = image.crop((*at, at[0] + wide, at[1] + high))
                    yield cut.resize((SCALE, SCALE))

    def preprocess(self, images, do_pad=True, max_slice_nums=None, return_tensors=None):
        data = {"pixel_values": [], "image_sizes": [], "tgt_sizes": []}
        for row in images:
            pieces = [each for image in row for each in self._pieces(image.convert("RGB"))]
            arrays = [torch.from_numpy(np.asarray(each, np.float32) / 127.5 - 1) for each in pieces]
            sizes = [[each.shape[0] // PATCH, each.shape[1] // PATCH] for each in arrays]
            data["pixel_values"].append([_strip(each) for each in arrays])
            data["tgt_sizes"].append(torch.tensor(sizes, dtype=torch.int32).reshape(-1, 2))
            data["image_sizes"].append([image.size for image in row])
        return BatchFeature(data)


def _strip(pixels):
    """(rows, columns, 3) to (3, patch, patches times patch)."""
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    cut = pixels.permute(2, 0, 1).reshape(3, rows, PATCH, columns, PATCH)
    return cut.permute(0, 2, 1, 3, 4).reshape(3, PATCH, rows * columns * PATCH)
