"""Shifted sparse attention as an attention implementation of transformers."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunewright import RecipeError, RunError
from tunewright_hf.models.modules import base_model

__all__ = ["shifted_attention"]

#: arguments of attention functions that change which keys count, or how
_OTHER_KINDS = ("sliding_window", "softcap", "s_aux", "position_bias")


@contextmanager
def shifted_attention(model: Any, size: int) -> Iterator[None]:
    """Inside, the model attends within groups of `size` tokens while it trains.

    Raises RecipeError if layers of the model have another attention than full, or none that
    transformers can replace.
    """
    base = base_model(model)
    _check(base)
    name, before = f"longlora_{size}", base.config._attn_implementation
    # names of ours alone: they stay known, and nothing else asks for them
    AttentionInterface.register(name, functools.partial(_attend, size=size))
    AttentionMaskInterface.register(name, _mask)
    base.set_attn_implementation(name)
    if base.config._attn_implementation != name:
        raise _unfit(base, "attention that transformers cannot replace")
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def _check(base: Any) -> None:
    config = base.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    windowed = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    if kinds or (windowed and not getattr(config, "layer_types", None)):
        raise _unfit(base, f"layers of {', '.join(sorted(kinds)) or 'sliding_attention'}")


def _unfit(base: Any, what: str) -> RecipeError:
    return RecipeError(
        f"{type(base).__name__} has {what}, and longlora is for full attention",
        place="accelerators",
        hint="take longlora out of the recipe",
    )


def _mask(
    *,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    **arguments: Any,
) -> Tensor | None:
    """The mask of sdpa; None where rows are padded on the right alone: no token sees what comes
    after it. attention_mask: (B, T), False for padding."""
    plain = allow_is_causal_skip and local_size is None
    if plain and attention_mask is not None and arguments["q_length"] == arguments["kv_length"]:
        known = attention_mask[:, : arguments["kv_length"]].int()
        if not bool((known[:, 1:] > known[:, :-1]).any()):
            return None
    made: Tensor | None = sdpa_mask(
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=allow_is_causal_skip,
        **arguments,
    )
    return made


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    size: int,
    dropout: float = 0.0,
    scaling: float | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Attention (B, T, H, D) of query (B, H, T, D), key and value (B, K, T, D)."""
    length = query.shape[2]
    if not module.training or length <= size:
        full: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **arguments
        )
        return full
    if strange := [name for name in _OTHER_KINDS if arguments.get(name) is not None]:
        raise RecipeError(
            f"{type(module).__name__} has {strange[0]}, and longlora is for full attention",
            place="accelerators",
            hint="take longlora out of the recipe",
        )
    if attention_mask is not None:
        raise RunError("longlora needs rows that are padded on the right, and not packed")
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    more = -length % size  # after all tokens, which do not see it
    query, key, value = (F.pad(each, (0, 0, 0, more)) for each in (query, key, value))
    within = functools.partial(_within, dropout=dropout, scaling=scaling)
    plain, shifted = ([each.chunk(2, dim=1)[n] for each in (query, key, value)] for n in (0, 1))
    half, end = size // 2, length + more - size // 2
    parts = [
        within([each[:, :, :half] for each in shifted], half),
        within([each[:, :, half:end] for each in shifted], size),
        within([each[:, :, end:] for each in shifted], half),
    ]
    found = torch.cat([within(plain, size), torch.cat(parts, dim=2)], dim=1)
    return found[:, :, :length].transpose(1, 2).contiguous(), None


def _within(parts: list[Tensor], size: int, dropout: float, scaling: float | None) -> Tensor:
    """Causal attention within groups of `size` tokens: (B, H, T, D), where T is a multiple."""
    batch, heads, length, _ = parts[0].shape
    folded = [
        each.reshape(batch, heads, length // size, size, -1).transpose(1, 2).flatten(0, 1)
        for each in parts
    ]
    found = F.scaled_dot_product_attention(
        *folded, dropout_p=dropout, is_causal=True, scale=scaling
    )
    return found.reshape(batch, length // size, heads, size, -1).transpose(1, 2).flatten(2, 3)
