"""Config of a language model with a tower, as MiniCPM-V 2.6 has it: fields of both in one."""

from transformers import Qwen2Config


class MiniCPMVConfig(Qwen2Config):
    model_type = "minicpmv"

    def __init__(self, query_num=4, patch_size=14, vision_size=32, **kw):
        self.query_num, self.patch_size, self.vision_size = query_num, patch_size, vision_size
        super().__init__(**kw)
