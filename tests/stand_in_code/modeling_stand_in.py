"""A model as checkpoints bring them that were written for transformers 4.

Nothing of it comes from transformers' own models: tables that `__init__` computes, as buffers that
no file holds and as plain tensors; caches that are tuples; a list of tied keys; a loss of its own,
of as many columns as the vocabulary has; a head that is not called lm_head; names and settings that
transformers 5 has no more; a package that only a chat function needs; heads for tokens further on,
which the forward pass leaves out.
"""

import math
from typing import Optional

import torch
from torch import nn
from torch.nn import CrossEntropyLoss
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.import_utils import is_torch_fx_available

from .configuration_stand_in import StandInConfig  # noqa: TID252

if is_torch_fx_available():
    raise RuntimeError("there is no such module any more")


class RMSNorm(nn.Module):
    def __init__(self, hidden_size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x):
        scaled = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * scaled.to(x.dtype)


class RotaryEmbedding(nn.Module):
    def __init__(self, dim, positions, base, scaling):
        super().__init__()
        factor = 1.0
        if scaling is not None:
            if scaling["type"] != "linear":
                raise ValueError(f"Unknown RoPE scaling type {scaling['type']}")
            factor = scaling["factor"]
        inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim))
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        angles = torch.outer(torch.arange(positions).float() / factor, inv_freq)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.sin = angles.sin()  # no buffer at all
        self.largest = self.sin.max().item()

    def forward(self, x, position_ids):
        self.sin = self.sin.to(x.device)
        cos, sin = self.cos[position_ids][:, None], self.sin[position_ids][:, None]
        half = x.shape[-1] // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return (x * cos + turned * sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.W_pack = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.rotary_emb = RotaryEmbedding(
            self.head_dim, config.max_position_embeddings, config.rope_theta, config.rope_scaling
        )

    def forward(self, hidden, mask, position_ids, past_key_value, head_mask, use_cache):
        batch, length, _ = hidden.size()
        packed = self.W_pack(hidden).view(batch, length, 3, self.num_heads, self.head_dim)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        query = self.rotary_emb(query, position_ids)
        key = self.rotary_emb(key, position_ids)
        if past_key_value is not None:
            key = torch.cat([past_key_value[0], key], dim=2)
            value = torch.cat([past_key_value[1], value], dim=2)
        past_key_value = (key, value) if use_cache else None
        weights = query @ key.transpose(2, 3) / math.sqrt(self.head_dim) + mask
        weights = torch.softmax(weights, dim=-1, dtype=torch.float32).to(value.dtype)
        if head_mask is not None:
            weights = weights * head_mask
        output = (weights @ value).transpose(1, 2).reshape(batch, length, -1)
        return self.o_proj(output), past_key_value


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = Attention(config)
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.act_fn = ACT2FN["silu"]
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden, *arguments):
        attended, past_key_value = self.self_attn(self.input_layernorm(hidden), *arguments)
        hidden = hidden + attended
        normed = self.post_attention_layernorm(hidden)
        return hidden + self.w2(self.act_fn(self.w1(normed)) * self.w3(normed)), past_key_value


class StandInPreTrainedModel(PreTrainedModel):
    config_class = StandInConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]  # noqa: RUF012

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)

    def _set_gradient_checkpointing(self, module, value=False):
        if isinstance(module, StandInModel):
            module.gradient_checkpointing = value


class StandInModel(StandInPreTrainedModel):
    def __init__(self, config: StandInConfig):
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.tok_embeddings

    def set_input_embeddings(self, value):
        self.tok_embeddings = value

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        return_dict=None,
    ):
        use_cache = use_cache if use_cache is not None else self.config.use_cache
        return_dict = return_dict if return_dict is not None else self.config.use_return_dict
        hidden = self.tok_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        length = hidden.shape[1]
        past = past_key_values[0][0].shape[2] if past_key_values is not None else 0
        if position_ids is None:
            position_ids = torch.arange(past, past + length, device=hidden.device)[None]
        head_mask = self.get_head_mask(None, self.config.num_hidden_layers)
        causal = torch.ones(length, past + length, dtype=torch.bool, device=hidden.device)
        allowed = causal.tril(past)[None, None]
        if attention_mask is not None:
            allowed = allowed & attention_mask[:, None, None, :].bool()
        mask = torch.zeros_like(allowed, dtype=hidden.dtype)
        mask = mask.masked_fill(~allowed, torch.finfo(hidden.dtype).min)
        next_cache = () if use_cache else None
        for number, layer in enumerate(self.layers):
            known = past_key_values[number] if past_key_values is not None else None
            arguments = (hidden, mask, position_ids, known, head_mask[number], use_cache)
            if self.gradient_checkpointing and self.training:
                hidden, made = self._gradient_checkpointing_func(layer.__call__, *arguments)
            else:
                hidden, made = layer(*arguments)
            if use_cache:
                next_cache += (made,)
        hidden = self.norm(hidden)
        if not return_dict:
            return tuple(each for each in (hidden, next_cache) if each is not None)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=next_cache)


class StandInForCausalLM(StandInPreTrainedModel):
    _tied_weights_keys = ["output_layer.weight"]  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)
        self.max_sequence_length = config.max_length
        self.model = StandInModel(config)
        self.output_layer = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.mtp_layers = nn.ModuleList(
            [Layer(config) for _ in range(config.num_nextn_predict_layers)]
        )
        self.post_init()

    def get_input_embeddings(self):
        return self.model.tok_embeddings

    def set_input_embeddings(self, value):
        self.model.tok_embeddings = value

    def get_output_embeddings(self):
        return self.output_layer

    def set_output_embeddings(self, value):
        self.output_layer = value

    def forward(
        self,
        input_ids: torch.LongTensor = None,
        attention_mask: Optional[torch.Tensor] = None,  # noqa: UP045
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        return_dict = return_dict if return_dict is not None else self.config.use_return_dict
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=return_dict,
        )
        logits = self.output_layer(outputs[0]).float()
        loss = None
        if labels is not None:
            shift_logits = logits[..., :-1, :].contiguous().view(-1, self.config.vocab_size)
            shift_labels = labels[..., 1:].contiguous().view(-1)
            loss = CrossEntropyLoss()(shift_logits, shift_labels.to(shift_logits.device))
        if not return_dict:
            output = (logits, *outputs[1:])
            return (loss, *output) if loss is not None else output
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values
        )

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, inputs_embeds=None, **kwargs
    ):
        if past_key_values:
            input_ids = input_ids[:, -1:]
        position_ids = kwargs.get("position_ids")
        if attention_mask is not None and position_ids is None:
            position_ids = attention_mask.long().cumsum(-1) - 1
            position_ids.masked_fill_(attention_mask == 0, 1)
            if past_key_values:
                position_ids = position_ids[:, -1].unsqueeze(-1)
        model_inputs = (
            {"inputs_embeds": inputs_embeds}
            if inputs_embeds is not None and past_key_values is None
            else {"input_ids": input_ids}
        )
        return model_inputs | {
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "use_cache": kwargs.get("use_cache"),
            "attention_mask": attention_mask,
        }

    def chat_stream(self, tokenizer, query):
        from transformers_stream_generator import main

        return main(self, tokenizer, query)
