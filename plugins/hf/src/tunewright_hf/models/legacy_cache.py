"""A cache of keys and values with the methods that transformers 4 gave it."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache


class LegacyCache(DynamicCache):
    """DynamicCache as code of checkpoints knows it: a list of (keys, values), both (B, H, T, D)."""

    @classmethod
    def from_legacy_cache(cls, past: Iterable[tuple[Tensor, Tensor]] | None = None) -> Any:
        cache = cls()
        for layer, (keys, values) in enumerate(past or ()):
            cache.update(keys, values, layer)
        return cache

    def to_legacy_cache(self) -> tuple[tuple[Tensor, Tensor], ...]:
        return tuple(self[layer] for layer in range(len(self.layers)))

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        found: Any = self.layers[layer]
        return found.keys, found.values

    @property
    def key_cache(self) -> list[Tensor]:
        return [self[layer][0] for layer in range(len(self.layers))]

    @property
    def value_cache(self) -> list[Tensor]:
        return [self[layer][1] for layer in range(len(self.layers))]

    @property
    def seen_tokens(self) -> int:
        return self.get_seq_length()

    _seen_tokens = seen_tokens

    def get_usable_length(self, new: int = 0, layer_idx: int = 0) -> int:
        return self.get_seq_length(layer_idx)

    def get_max_length(self, layer_idx: int | None = None) -> Any:
        """None: there is no limit. transformers 5 says -1."""
        return None

    get_max_cache_shape = get_max_length
