"""A processor as MiniCPM-V 2.6 brings it, written for transformers 4: its text has a pattern
where images are, and what it returns are lists."""

import re

import torch
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin


class MiniCPMVProcessor(ProcessorMixin):
    attributes = ("image_processor", "tokenizer")
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, text, images=None, max_slice_nums=None, return_tensors="pt"):
        made = self.image_processor(images)
        ids = []
        for row, sizes in zip(text, made["image_sizes"], strict=True):
            pieces = re.split(r"\(<image>\./</image>\)", row)
            texts = [
                self.image_processor.get_slice_image_placeholder(size, number)
                for number, size in enumerate(sizes)
            ]
            whole = "".join(a + b for a, b in zip(pieces, [*texts, ""], strict=True))
            ids.append(self.tokenizer(whole)["input_ids"])
        return BatchFeature({"input_ids": torch.tensor(ids), **made})
