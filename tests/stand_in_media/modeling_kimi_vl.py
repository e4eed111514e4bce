"""A model with Kimi-VL's interface: patches, a projector, embeddings for placeholders."""

import torch
from torch import nn
from transformers import GenerationMixin, LlamaForCausalLM, PreTrainedModel

from .configuration_kimi_vl import KimiVLConfig  # noqa: TID252

MERGE = 2


class KimiVLForConditionalGeneration(PreTrainedModel, GenerationMixin):
    config_class = KimiVLConfig
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        size, text = config.vision_config["hidden_size"], config.text_config.hidden_size
        self.vision_tower = nn.Linear(3 * config.vision_config["patch_size"] ** 2, size)
        self.multi_modal_projector = nn.Linear(size * MERGE**2, text)
        self.language_model = LlamaForCausalLM(config.text_config)
        self.post_init()

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.language_model.get_output_embeddings()

    def get_decoder(self):
        return self.language_model.get_decoder()

    def _features(self, pixel_values, image_grid_hws):
        states, found, at = self.vision_tower(pixel_values.flatten(1)), [], 0
        for rows, columns in image_grid_hws.tolist():
            own = states[at : at + rows * columns]
            at += rows * columns
            grouped = own.view(rows // MERGE, MERGE, columns // MERGE, MERGE, -1).transpose(1, 2)
            found.append(grouped.reshape(rows * columns // MERGE**2, -1))
        return self.multi_modal_projector(torch.cat(found))

    def forward(
        self,
        input_ids=None,
        pixel_values=None,
        image_grid_hws=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            if pixel_values is not None:
                place = input_ids == self.config.media_placeholder_token_id
                features = self._features(pixel_values, image_grid_hws).to(inputs_embeds.dtype)
                inputs_embeds = inputs_embeds.masked_scatter(place[..., None], features)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
        )
