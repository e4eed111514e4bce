"""Architectures whose code is on the hub only, in plain torch over the tensors of their files: what
the mappings of the families claim to be equal to.

Written from the descriptions of the architectures (reports, config keys, names and shapes of the
tensors). Each function gets the tensors by name, the config.json, ids (B, T) and a mask (B, T), and
returns logits (B, T, V).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize, silu

Tensors = dict[str, Tensor]
Config = dict[str, Any]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt())


def angles(x: Tensor, size: int, theta: float) -> Tensor:
    """One angle for each position and pair of dimensions: (T, size / 2), in float32 as the codes
    have it."""
    frequencies = 1.0 / theta ** (torch.arange(0, size, 2).float() / size)
    return torch.outer(torch.arange(x.shape[1]).float(), frequencies)


def rotate_halves(x: Tensor, theta: float) -> Tensor:
    """Dimension i is turned with dimension i + D/2. x (B, T, H, D)."""
    turn = angles(x, x.shape[-1], theta)[:, None]
    cos, sin = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
    one, two = x.chunk(2, dim=-1)
    return torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)


def rotate_neighbours(x: Tensor, theta: float, turned: int) -> Tensor:
    """Of the first `turned` dimensions, 2i is turned with 2i + 1. x (B, T, H, D)."""
    turn = angles(x, turned, theta)[:, None]
    cos, sin = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
    even, odd = x[..., 0:turned:2], x[..., 1:turned:2]
    pairs = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return torch.cat((pairs.flatten(-2), x[..., turned:]), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Causal attention. q (B, T, H, D); k, v (B, T, G, D): query head h has group h // (H / G)."""
    repeats = q.shape[2] // k.shape[2]
    k, v = (each.repeat_interleave(repeats, dim=2) for each in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    length = q.shape[1]
    allowed = torch.ones(length, length).tril().bool() & mask[:, None, None, :].bool()
    allowed |= torch.eye(length).bool()  # a padded position sees itself, and counts nowhere
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)


def dense(w: Tensors, name: str, x: Tensor) -> Tensor:
    return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def swiglu(w: Tensors, at: str, x: Tensor) -> Tensor:
    gate, up = dense(w, f"{at}.gate_proj", x), dense(w, f"{at}.up_proj", x)
    return dense(w, f"{at}.down_proj", silu(gate) * up)


def decode(
    x: Tensor,
    count: int,
    norm: Callable[[str, Tensor], Tensor],
    attention: Callable[[int, Tensor], Tensor],
    mlp: Callable[[int, Tensor], Tensor],
    scale: float = 1.0,
) -> Tensor:
    """Pre-norm layers. norm: of "N.first" and "N.second"; scale: of what a block adds."""
    for n in range(count):
        x = x + scale * attention(n, norm(f"{n}.first", x))
        x = x + scale * mlp(n, norm(f"{n}.second", x))
    return x


def usual(
    w: Tensors, c: Config, ids: Tensor, mask: Tensor, attention: Any = None, **other: Any
) -> Tensor:
    """The last hidden states (B, T, H) of a decoder with the names of Llama; attention, mlp, scale,
    multiplier: what is not as there."""
    heads = c["num_attention_heads"]
    groups = c.get("num_key_value_heads") or heads
    theta = float(c.get("rope_theta", 10000))

    def attend_as_llama(n: int, x: Tensor) -> Tensor:
        at = f"model.layers.{n}.self_attn"
        q, k, v = (dense(w, f"{at}.{each}_proj", x) for each in "qkv")
        q, k, v = q.unflatten(-1, (heads, -1)), *(e.unflatten(-1, (groups, -1)) for e in (k, v))
        q, k = rotate_halves(q, theta), rotate_halves(k, theta)
        return dense(w, f"{at}.o_proj", attend(q, k, v, mask))

    eps = c.get("rms_norm_eps", 1e-6)
    names = {"first": "input_layernorm", "second": "post_attention_layernorm"}

    def norm(place: str, x: Tensor) -> Tensor:
        n, _, which = place.partition(".")
        return rms_norm(x, w[f"model.layers.{n}.{names[which]}.weight"], eps)

    x = w["model.embed_tokens.weight"][ids] * other.get("multiplier", 1.0)
    mlp = other.get("mlp", lambda n, x: swiglu(w, f"model.layers.{n}.mlp", x))
    layers = c["num_hidden_layers"]
    x = decode(x, layers, norm, attention or attend_as_llama, mlp, other.get("scale", 1.0))
    return rms_norm(x, w["model.norm.weight"], eps)


def xverse(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    return dense(w, "lm_head", usual(w, c, ids, mask))


mimo = xverse  # with biases of q, k and v; mtp_layers take no part
internlm = xverse  # with biases of q, k, v and o; scaling begins beyond max_position_embeddings


def index(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    head = w["lm_head.weight"]
    return linear(usual(w, c, ids, mask), normalize(head, dim=1) if c["norm_head"] else head)


def baichuan(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    """Queries, keys and values of one projection; Baichuan 2 has rows of length 1 in its head."""

    def attention(n: int, x: Tensor) -> Tensor:
        at = f"model.layers.{n}.self_attn"
        packed = dense(w, f"{at}.W_pack", x).unflatten(-1, (3, c["num_attention_heads"], -1))
        q, k, v = packed.unbind(2)
        q, k = rotate_halves(q, 10000.0), rotate_halves(k, 10000.0)
        return dense(w, f"{at}.o_proj", attend(q, k, v, mask))

    second = c["architectures"] == ["BaichuanForCausalLM"]
    head = w["lm_head.weight"]
    x = usual(w, c, ids, mask, attention)
    return linear(x, head / head.norm(dim=1, keepdim=True) if second else head)


def internlm2(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    """Each group of heads has its queries, then its key, then its value, in one projection."""
    groups = c["num_key_value_heads"]
    size = c["hidden_size"] // c["num_attention_heads"]
    theta = float(c["rope_theta"])  # dynamic scaling begins beyond max_position_embeddings

    def attention(n: int, x: Tensor) -> Tensor:
        at = f"model.layers.{n}.attention"
        packed = dense(w, f"{at}.wqkv", x).unflatten(-1, (groups, -1, size))  # (B, T, G, R + 2, D)
        q, k, v = packed[..., :-2, :].flatten(2, 3), packed[..., -2, :], packed[..., -1, :]
        q, k = rotate_halves(q, theta), rotate_halves(k, theta)
        return dense(w, f"{at}.wo", attend(q, k, v, mask))

    def mlp(n: int, x: Tensor) -> Tensor:
        at = f"model.layers.{n}.feed_forward"
        return dense(w, f"{at}.w2", silu(dense(w, f"{at}.w1", x)) * dense(w, f"{at}.w3", x))

    def norm(place: str, x: Tensor) -> Tensor:
        n, _, which = place.partition(".")
        name = {"first": "attention_norm", "second": "ffn_norm"}[which]
        return rms_norm(x, w[f"model.layers.{n}.{name}.weight"], c.get("rms_norm_eps", 1e-6))

    x = decode(w["model.tok_embeddings.weight"][ids], c["num_hidden_layers"], norm, attention, mlp)
    return dense(w, "output", rms_norm(x, w["model.norm.weight"], c.get("rms_norm_eps", 1e-6)))


def chatglm(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    """Few groups of keys and values; half of each head's dimensions are turned, by neighbours."""
    heads, groups, size = c["num_attention_heads"], c["multi_query_group_num"], c["kv_channels"]
    theta, eps = 10000.0 * c.get("rope_ratio", 1), c["layernorm_epsilon"]
    layer = "transformer.encoder.layers"

    def attention(n: int, x: Tensor) -> Tensor:
        at = f"{layer}.{n}.self_attention"
        packed = dense(w, f"{at}.query_key_value", x).unflatten(-1, (-1, size))
        q, k, v = packed.split([heads, groups, groups], dim=2)
        q, k = (rotate_neighbours(each, theta, size // 2) for each in (q, k))
        return dense(w, f"{at}.dense", attend(q, k, v, mask))

    def mlp(n: int, x: Tensor) -> Tensor:
        gate, up = dense(w, f"{layer}.{n}.mlp.dense_h_to_4h", x).chunk(2, dim=-1)
        return dense(w, f"{layer}.{n}.mlp.dense_4h_to_h", silu(gate) * up)

    def norm(place: str, x: Tensor) -> Tensor:
        n, _, which = place.partition(".")
        name = {"first": "input_layernorm", "second": "post_attention_layernorm"}[which]
        return rms_norm(x, w[f"{layer}.{n}.{name}.weight"], eps)

    x = w["transformer.embedding.word_embeddings.weight"][ids]
    x = decode(x, c["num_layers"], norm, attention, mlp)
    x = rms_norm(x, w["transformer.encoder.final_layernorm.weight"], eps)
    return dense(w, "transformer.output_layer", x)


def qwen(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    """Qwen 1, up to seq_length. Its second matrix is the one that the activation acts on."""
    heads, theta, eps = c["num_attention_heads"], float(c["rotary_emb_base"]), 1e-6

    def attention(n: int, x: Tensor) -> Tensor:
        at = f"transformer.h.{n}.attn"
        q, k, v = (e.unflatten(-1, (heads, -1)) for e in dense(w, f"{at}.c_attn", x).chunk(3, -1))
        q, k = rotate_halves(q, theta), rotate_halves(k, theta)
        return dense(w, f"{at}.c_proj", attend(q, k, v, mask))

    def mlp(n: int, x: Tensor) -> Tensor:
        at = f"transformer.h.{n}.mlp"
        return dense(w, f"{at}.c_proj", dense(w, f"{at}.w1", x) * silu(dense(w, f"{at}.w2", x)))

    def norm(place: str, x: Tensor) -> Tensor:
        n, _, which = place.partition(".")
        name = {"first": "ln_1", "second": "ln_2"}[which]
        return rms_norm(x, w[f"transformer.h.{n}.{name}.weight"], eps)

    x = decode(w["transformer.wte.weight"][ids], c["num_hidden_layers"], norm, attention, mlp)
    return dense(w, "lm_head", rms_norm(x, w["transformer.ln_f.weight"], eps))


def minicpm(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    """Embeddings, what blocks add, and the states before the head are scaled (µP); tied head."""
    added = c["scale_depth"] / math.sqrt(c["num_hidden_layers"])
    x = usual(w, c, ids, mask, multiplier=c["scale_emb"], scale=added)
    x = x / (c["hidden_size"] / c["dim_model_base"])
    return linear(x, w.get("lm_head.weight", w["model.embed_tokens.weight"]))


def deepseek(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    """The likeliest experts, weighted with their probabilities among all, and shared ones that see
    every token; the first layers are dense."""

    def mlp(n: int, x: Tensor) -> Tensor:
        at = f"model.layers.{n}.mlp"
        if n < c["first_k_dense_replace"]:
            return swiglu(w, at, x)
        chances = linear(x, w[f"{at}.gate.weight"]).softmax(-1)  # (B, T, E)
        best = chances.topk(c["num_experts_per_tok"], dim=-1).indices
        chosen = torch.zeros_like(chances).scatter(-1, best, 1.0) * chances
        total = swiglu(w, f"{at}.shared_experts", x)
        for expert in range(c["n_routed_experts"]):
            part = swiglu(w, f"{at}.experts.{expert}", x)
            total = total + chosen[..., expert : expert + 1] * part
        return total

    return dense(w, "lm_head", usual(w, c, ids, mask, mlp=mlp))


def telechat(w: Tensors, c: Config, ids: Tensor, mask: Tensor) -> Tensor:
    """Keys and values head by head in one projection; biases of the two output projections alone;
    positions stretched (NTK) for training_seqlen. Cosines are not rounded to float16 here."""
    heads, groups = c["n_head"], c.get("num_key_value_heads") or c["n_head"]
    size, eps = c["hidden_size"] // heads, c["layer_norm_epsilon"]
    stretch = 2 ** math.ceil(math.log(c["training_seqlen"] / c["base_seqlen"], 2) + 1) - 1
    theta = 10000 * max(stretch, 1) ** (size / (size - 2))

    def attention(n: int, x: Tensor) -> Tensor:
        at = f"transformer.h.{n}.self_attention"
        q = dense(w, f"{at}.query", x).unflatten(-1, (heads, size))
        k, v = dense(w, f"{at}.key_value", x).unflatten(-1, (groups, 2 * size)).chunk(2, dim=-1)
        q, k = rotate_halves(q, theta), rotate_halves(k, theta)
        return dense(w, f"{at}.dense", attend(q, k, v, mask))

    def norm(place: str, x: Tensor) -> Tensor:
        n, _, which = place.partition(".")
        name = {"first": "input_layernorm", "second": "post_attention_layernorm"}[which]
        return rms_norm(x, w[f"transformer.h.{n}.{name}.weight"], eps)

    x, layers = w["transformer.word_embeddings.weight"][ids], c["n_layer"]
    x = decode(x, layers, norm, attention, lambda n, x: swiglu(w, f"transformer.h.{n}.mlp", x))
    return dense(w, "lm_head", rms_norm(x, w["transformer.ln_f.weight"], eps))
