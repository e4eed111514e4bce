"""Forward passes of a model over a group of rows, whatever its architecture."""

import inspect
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)
from transformers.generation import GenerationMixin

from tunewright.types import Embedding
from tunewright_hf.inference.rope import RopeState, unscaled_length
from tunewright_hf.inference.rows import Row
from tunewright_hf.inference.slots import SlotCache
from tunewright_hf.inference.virtual_tokens import VirtualTokens
from tunewright_hf.losses.pooling import pooled
from tunewright_hf.losses.sequence_scores import scores_at_the_end
from tunewright_hf.media.prompts import PromptMedia
from tunewright_hf.models.legacy_cache import LegacyCache
from tunewright_hf.models.modules import base_model

__all__ = ["Group", "ModelRunner"]

BASE = "__base__"  # PEFT's name for a row without an adapter


class ModelRunner:
    """A model in evaluation mode, and what its architecture allows.

    pads: rows of unequal length may be prefilled together, and a prompt in chunks. together: rows
    may share a batch at all; else each has the cache that transformers makes for the model.
    adapters: whether rows name adapters of PEFT.
    """

    def __init__(self, model: Any, *, adapters: bool = False) -> None:
        base = base_model(model)
        self._virtual = VirtualTokens(model)
        self._whole, self.model = model, base if self._virtual.count else model
        self._config, self._adapters = base.config, adapters
        self._parameters = inspect.signature(base.forward).parameters
        # code that comes with a checkpoint knows the cache of transformers 4 only
        self._own_code = type(base).__module__.startswith("transformers_modules.")
        kinds = [type(layer) for layer in self.layers()]
        self._makes_cache = _has_own_cache(base) or not _takes_caches(base)
        known = all(map(_is_known, kinds)) and not self._makes_cache
        # layers of cross attention hold no token's keys, so none can be moved between rows
        crosses = "cross_attention_states" in self._parameters
        self.together = known and not crosses and not self._own_code
        has_state = any(map(_has_state, kinds))
        self.pads = self.together and not has_state and not self._virtual.count
        self.rope = RopeState(base)
        self._unscaled_length = unscaled_length(base.config)

    def layers(self) -> Sequence[Any]:
        """Layers of a fresh cache."""
        return DynamicCache(config=self._config).layers

    def is_alone(self, row: Row) -> bool:
        """Whether the row may share no batch: RoPE that depends on the longest row of a batch."""
        if not self.together:
            return True
        length = self.length(row)
        return self._unscaled_length is not None and length > self._unscaled_length

    @property
    def virtual_tokens(self) -> int:
        """Columns that stand before every prompt."""
        return self._virtual.count

    def length(self, row: Row) -> int:
        """Columns of a row when it is finished."""
        return self._virtual.count + len(row.prompt) + row.max_new_tokens

    def begin(self, group: "Group") -> None:
        """Compute the virtual tokens of a group with one row that has no column yet."""
        if not self._virtual.count:
            return
        embeddings = self._virtual.embeddings()
        if embeddings is not None:
            self._forward(group, self._virtual.count, 1, inputs_embeds=embeddings)
        else:
            group.cache.inputs(self._virtual.count, self.model.device)  # makes room
            self._virtual.write(group.cache.cache)
            group.cache.advance(self._virtual.count)

    def native_cache(self) -> "NativeCache":
        if self._makes_cache:
            return NativeCache(None)
        return NativeCache(LegacyCache() if self._own_code else DynamicCache(config=self._config))

    def forward(
        self, group: "Group", ids: Tensor, keep: int = 1, media: PromptMedia | None = None
    ) -> Tensor:
        """Logits (B, keep, V) of the last `keep` columns of ids (B, T); 0: of all. media: of the
        group's only row, whose whole prompt the ids are."""
        given = {"input_ids": ids} | group.each_step
        if media is not None:
            given |= media.inputs
            if media.positions is not None:
                given["position_ids"] = media.positions + self._virtual.count
            if (mask := media.inputs.get("cross_attention_mask")) is not None:
                group.each_step = {"cross_attention_mask": mask[:, -1:]}
        given = {name: each.to(self.model.device) for name, each in given.items()}
        return self._forward(group, ids.shape[1], keep, **given)

    def embed(self, ids: list[int], adapter: str | None, embedding: Embedding) -> list[float]:
        """Vector of a text."""
        names = {"adapter_names": [adapter or BASE]} if self._adapters else {}
        given = torch.tensor([ids], device=self.model.device)  # (1, T)
        mask = torch.ones_like(given)
        found = self.model(
            input_ids=given,
            attention_mask=mask,
            output_hidden_states=True,
            use_cache=False,
            **names,
        )
        vectors: list[float] = pooled(found.hidden_states[-1], mask, embedding)[0].tolist()
        return vectors

    def score(self, ids: list[int], media: PromptMedia | None) -> float:
        """Score of a text with its media, from a model with the head `score`."""
        given = torch.tensor([ids])  # (1, T)
        inputs = {"input_ids": given, "attention_mask": torch.ones_like(given)}
        inputs |= media.inputs if media else {}
        inputs = {name: each.to(self._whole.device) for name, each in inputs.items()}
        return float(scores_at_the_end(self._whole, self._whole, inputs))

    def _forward(self, group: "Group", count: int, keep: int, **given: Tensor) -> Tensor:
        arguments: dict[str, Any] = group.cache.inputs(count, self.model.device)
        if any(offsets := [row.media.offset if row.media else 0 for row in group.rows]):
            arguments["position_ids"] += torch.tensor(offsets, device=self.model.device)[:, None]
        if "position_ids" not in self._parameters:
            del arguments["position_ids"]
        if "logits_to_keep" in self._parameters:
            arguments["logits_to_keep"] = keep
        if self._adapters:
            arguments["adapter_names"] = [row.adapter or BASE for row in group.rows]
        with self.rope.of(group):
            found = self.model(
                past_key_values=group.cache.cache, use_cache=True, **(arguments | given)
            )
        group.cache.advance(count)
        if isinstance(group.cache, NativeCache):
            group.cache.cache = found.past_key_values
        logits: Tensor = found.logits
        return logits[:, -keep:] if keep else logits


class Group:
    """Rows that share a batch, and their cache. alone: no other row may join.

    rows: one for each row of the cache.
    """

    def __init__(
        self, rows: list[Row], cache: "SlotCache | NativeCache", *, alone: bool = False
    ) -> None:
        self.rows, self.cache, self.alone = rows, cache, alone
        self.rope: Any = None  # state of the model's RoPE; of RopeState
        self.each_step: dict[str, Tensor] = {}  # further inputs of every pass

    @property
    def most(self) -> int:
        """Tokens of its longest row when it is finished."""
        return max(len(row.prompt) + row.max_new_tokens for row in self.rows)

    def remove(self, row: int) -> None:
        """Remove a row. The last one takes its place."""
        self.cache.remove(row)
        self.rows[row] = self.rows[-1]
        self.rows.pop()


class NativeCache:
    """The cache that transformers makes for a model, for a single row. None: the model makes it."""

    def __init__(self, cache: Cache | None) -> None:
        self.cache, self.length, self.rows = cache, 0, 1

    @property
    def allocated(self) -> int:
        return self.length

    def inputs(self, count: int, device: Any) -> dict[str, Tensor | None]:
        end = self.length + count
        return {
            "attention_mask": torch.ones(1, end, dtype=torch.long, device=device),
            "position_ids": torch.arange(self.length, end, device=device)[None],
        }

    def advance(self, count: int) -> None:
        self.length += count

    def remove(self, row: int) -> None:
        self.rows = 0


def _has_own_cache(model: Any) -> bool:
    """Whether the model's module has a class of caches, as MiniMax's: it takes no other."""
    module = type(model).__module__
    return any(
        isinstance(value, type) and issubclass(value, Cache) and value.__module__ == module
        for value in vars(sys.modules[module]).values()
    )


def _takes_caches(model: Any) -> bool:
    """Whether the model takes Cache objects; code written for tuples does not (see legacy_code)."""
    return not isinstance(model, GenerationMixin) or model._supports_default_dynamic_cache()


def _has_state(kind: type) -> bool:
    return issubclass(kind, LinearAttentionCacheLayerMixin)


def _is_known(kind: type) -> bool:
    """Whether SlotCache can stand for a layer of this kind: of its own kind of state, there may be
    more (an indexer's keys)."""
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return kind in plain or _has_state(kind) or not issubclass(kind, CacheLayerMixin)
