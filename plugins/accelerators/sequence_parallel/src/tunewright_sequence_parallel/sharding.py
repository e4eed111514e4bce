"""Split the sequence between a model's layers, and nowhere else.

Outside of its layers the model sees whole sequences: it computes masks and rotary positions as
always, and its last layer returns zeros for the tokens of other ranks. Labels are ignored there, so
losses are sums over this rank's tokens, which the loop adds up over ranks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunewright import RecipeError
from tunewright_hf.losses.causal_lm import replaced
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.models.modules import base_model, layers
from tunewright_hf.training.callbacks import TrainingCallback
from tunewright_sequence_parallel.attention import METHODS

#: name of the attention implementation
_NAME = "sequence_parallel"
#: arguments of layers that have an entry for each token → its dimension
_OF_TOKENS = {"position_embeddings": -2, "position_ids": -1, "cache_position": -1}
_EXACT, _ROUNDED = 1e-3, 1e-1  # largest difference, as a share of the largest output


class SequenceSharding(TrainingCallback):
    """Split sequences over a group of ranks. size: ranks of the group. rank: of this one in it."""

    def __init__(self, method: str, size: int, rank: int) -> None:
        self.method, self.size, self.rank = METHODS[method], size, rank
        self.on = False  # from the first step on
        self._group: Any = None
        self._length = 0  # tokens of the sequence that is split now; 0: none is

    # ---- batches ---------------------------------------------------------------------------------

    def own_labels(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch, with labels that only this rank's tokens predict. labels: (B, T)."""
        labels = batch["labels"]
        share = -(-labels.shape[1] // self.size)
        # the label of a token is the one after it
        first = self.rank * share + 1 if self.rank else 0
        own = torch.full_like(labels, IGNORED)
        place = slice(first, (self.rank + 1) * share + 1)
        own[:, place] = labels[:, place]
        return batch | {"labels": own}

    # ---- the model -------------------------------------------------------------------------------

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        """Split sequences in the layers of `model`, which may be PEFT-wrapped, from the first
        training step on. Raises RecipeError for attention other than sdpa."""
        base = base_model(model)
        before = base.config.get_text_config()._attn_implementation
        if before != "sdpa":
            raise RecipeError(
                f"the model computes attention by {before}, and sequence_parallel needs sdpa",
                place="accelerators",
                hint="take out what chooses it, or another model",
            )
        name, _ = layers(base, ())
        each = list(base.get_submodule(name))
        AttentionInterface.register(_NAME, self._attention)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        base.set_attn_implementation(_NAME)
        hooks = [
            layer.register_forward_pre_hook(
                partial(self._before_layer, layer is each[0]), with_kwargs=True
            )
            for layer in each
        ]
        hooks.append(each[-1].register_forward_hook(self._after_layers))
        callbacks = [*getattr(model, "training_callbacks", ()), self]
        try:
            with replaced(model, "training_callbacks", callbacks):
                yield
        finally:
            base.set_attn_implementation(before)
            for hook in hooks:
                hook.remove()

    def _before_layer(
        self, first: bool, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if first:
            length = args[0].shape[1]
            splits = self.on and kwargs.get("past_key_values") is None and length >= self.size
            self._length = length if splits else 0
        if not self._length:
            return None
        if first:
            args = (self._own(args[0], 1), *args[1:])
        changed = {
            name: self._own_of(kwargs[name], dimension)
            for name, dimension in _OF_TOKENS.items()
            if kwargs.get(name) is not None
        }
        return args, kwargs | changed

    def _after_layers(self, layer: nn.Module, args: Any, output: Any) -> Any:
        """Put zeros in place of the tokens of other ranks."""
        if not self._length:
            return None
        states = output[0] if isinstance(output, tuple) else output
        start = min(self.rank * states.shape[1], self._length)
        own = states[:, : self._length - start]
        zeros = states.new_zeros(states.shape[0], self._length - own.shape[1], states.shape[2])
        whole = torch.cat([zeros[:, :start], own, zeros[:, start:]], dim=1)
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    def _attention(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **how: Any
    ) -> tuple[Tensor, None]:
        if not self._length:
            return sdpa_attention_forward(module, query, key, value, mask, **how)
        return self.method(
            self._group, self.rank, self._length, module, query, key, value, mask, **how
        )

    def _own_of(self, value: Any, dimension: int) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._own(each, dimension) for each in value)
        return self._own(value, dimension)

    def _own(self, whole: Tensor, dimension: int) -> Tensor:
        """This rank's part of a dimension of T, with zeros where the last ranks have no tokens."""
        share = -(-self._length // self.size)
        start = min(self.rank * share, self._length)
        own = whole.narrow(dimension, start, min(share, self._length - start))
        missing = share - own.shape[dimension]
        after = -1 - dimension if dimension < 0 else whole.ndim - 1 - dimension
        return F.pad(own, (*[0, 0] * after, 0, missing)) if missing else own

    # ---- the first step --------------------------------------------------------------------------

    def begin(self, group: Any) -> None:
        """Split from now on, over the ranks of a process group."""
        self._group, self.on = group, True

    def on_step_begin(self, loop: Any) -> None:
        """Begin to split, once all ranks run. Raises RecipeError where the model gives other
        numbers then."""
        if self.on:
            return
        device, ranks = loop.trainer.device, loop.trainer.world_size
        shape = (ranks // self.size, self.size)
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=("data", "sequence"))
        ids = torch.arange(4 * self.size + 1, device=device)[None]
        training = loop.model.training
        loop.model.eval()
        with torch.no_grad(), loop.trainer.autocast():
            plain = loop.model(input_ids=ids, use_cache=False).logits.float()
            self.begin(mesh.get_group("sequence"))
            split = loop.model(input_ids=ids, use_cache=False).logits.float()
        loop.model.train(training)
        loop.sharding.reshard(loop.model)
        apart = (self._own(plain, 1) - self._own(split, 1)).abs().max()
        exact = next(loop.model.parameters()).dtype == torch.float32
        limit = (_EXACT if exact else _ROUNDED) * plain.abs().max()
        if loop.trainer.any_rank(not bool(apart <= limit)):
            raise RecipeError(
                f"{loop.model.config.model_type} gives other numbers where its sequences are split",
                place="accelerators",
                hint="take sequence_parallel out of the recipe",
            )
