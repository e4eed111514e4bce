"""A model with MiniCPM-V 2.6's interface: `forward` takes one dict, with lists of slices by row."""

from torch import nn
from transformers import PreTrainedModel, Qwen2ForCausalLM

from .configuration_minicpm import MiniCPMVConfig  # noqa: TID252


class MiniCPMV(PreTrainedModel):
    config_class = MiniCPMVConfig
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.llm = Qwen2ForCausalLM(config)
        self.vpm = nn.Linear(3 * config.patch_size**2, config.vision_size)
        self.resampler = nn.Linear(config.vision_size, config.query_num * config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.llm.lm_head

    def set_output_embeddings(self, value):
        self.llm.lm_head = value

    def get_decoder(self):
        return self.llm

    def get_vllm_embedding(self, data):
        embeddings = self.llm.model.embed_tokens(data["input_ids"]).clone()
        for row, slices in enumerate(data["pixel_values"]):
            bounds, sizes = data["image_bound"][row], data["tgt_sizes"][row]
            assert len(bounds) == len(slices) == len(sizes)
            for pixels, (start, end), size in zip(slices, bounds, sizes, strict=True):
                side, count = pixels.shape[1], int(size[0] * size[1])
                assert pixels.shape == (3, side, count * side)
                assert end - start == self.config.query_num
                patches = pixels.view(3, side, count, side).permute(2, 0, 1, 3).flatten(1)
                seen = self.resampler(self.vpm(patches).mean(0))
                embeddings[row, start:end] = seen.view(self.config.query_num, -1)
        return embeddings

    def forward(self, data, **kwargs):
        return self.llm(
            input_ids=None,
            position_ids=data["position_ids"].long(),
            inputs_embeds=self.get_vllm_embedding(data),
            **kwargs,
        )

    def generate(self, input_ids=None, pixel_values=None, tgt_sizes=None, tokenizer=None, **kwargs):
        raise NotImplementedError("takes lists, and is not called")
