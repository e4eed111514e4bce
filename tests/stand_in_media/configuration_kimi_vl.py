"""Config with a language model and a tower, as Kimi-VL's code has it."""

from transformers import LlamaConfig, PretrainedConfig


class KimiVLConfig(PretrainedConfig):
    model_type = "kimi_vl"

    def __init__(
        self,
        text_config=None,
        vision_config=None,
        media_placeholder_token_id=0,
        pad_token_id=0,
        **kw,
    ):
        self.text_config = LlamaConfig(**(text_config or {}))
        self.vision_config = vision_config or {}
        self.media_placeholder_token_id = media_placeholder_token_id
        super().__init__(pad_token_id=pad_token_id, **kw)
