"""Layers with a router: which tokens pass through them, in training and outside of it."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright import RecipeError, RunError
from tunewright.types import LoadedModel
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.modules import layers
from tunewright_hf.training.callbacks import TrainingCallback

if TYPE_CHECKING:
    from tunewright_hf.training.loop import TrainingLoop
    from tunewright_mixture_of_depths import MixtureOfDepths

__all__ = ["Prediction", "RoutedLayer", "route"]

_STD = 0.02  # of a new router's weights


class RoutedLayer(nn.Module):
    """A layer that some tokens of each row pass through; the others keep their states.

    In training the `capacity` of a row with the highest scores, else the tokens whose score is
    above 0. What the layer adds is multiplied by 2 sigmoid(score), which is about 1 at first.
    """

    def __init__(self, block: nn.Module, number: int, width: int, capacity: float) -> None:
        super().__init__()
        weight = next(block.parameters())
        self.block, self.layer_number, self.capacity = block, number, capacity
        self.router = nn.Linear(width, 1, bias=False, dtype=torch.float32, device=weight.device)
        nn.init.normal_(self.router.weight, std=_STD)
        #: of the last forward pass in training: states (B, T, D), and whether each token passed
        self.last: tuple[Tensor, Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # such as attention_type, which models ask of their layers
            return getattr(super().__getattr__("block"), name)

    def forward(self, hidden_states: Tensor, *arguments: Any, **more: Any) -> Any:
        if arguments:
            raise RunError(f"{type(self.block).__name__} is called in a way that is not supported")
        cache = more.get("past_key_values")
        if cache is not None and (self.training or len(hidden_states) > 1):
            # made for rows that are whole: nothing is read from it
            if hidden_states.shape[1] == 1 or cache.get_seq_length(self.layer_number):
                raise RunError(
                    "a mixture of depths has a key-value cache for one row at a time only",
                    hint="generate with use_cache=False, or row by row",
                )
            cache = more["past_key_values"] = None
        scores = self.router(hidden_states.float()).squeeze(-1)  # (B, T)
        chosen, counts = self._chosen(scores)
        if self.training:
            passed = torch.zeros_like(scores).scatter(1, chosen, 1.0)
            self.last = hidden_states.detach(), passed
        if not chosen.shape[1]:
            return hidden_states
        places = chosen[:, :, None].expand(-1, -1, hidden_states.shape[-1])
        states = hidden_states.gather(1, places)  # (B, K, D)
        more = _of_chosen(more, chosen, counts)
        if cache is not None:  # of this layer, it holds the tokens that have passed
            before = cache.get_seq_length(self.layer_number)
            more["attention_mask"] = _mask_after(before, states)
        made = self.block(states, **more)
        rest = made[1:] if isinstance(made, tuple) else ()
        made = made[0] if isinstance(made, tuple) else made
        gate = 2 * scores.gather(1, chosen).sigmoid()
        gate = gate * (torch.arange(chosen.shape[1], device=gate.device) < counts[:, None])
        added = (made - states) * gate[:, :, None].to(made.dtype)
        found = hidden_states.scatter_add(1, places, added)
        return (found, *rest) if rest else found

    def _chosen(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, K) of the tokens that pass, in their order, and how many of them count (B,):
        what comes after these fills up the batch."""
        if self.training:
            count = math.ceil(self.capacity * scores.shape[1])
            chosen = scores.topk(count, dim=1).indices.sort(dim=1).values
            return chosen, torch.full_like(chosen[:, 0], count)
        passing = scores > 0
        counts = passing.sum(dim=1)
        order = (~passing).int().argsort(dim=1, stable=True)
        return order[:, : int(counts.max())], counts


def _of_chosen(arguments: dict[str, Any], chosen: Tensor, counts: Tensor) -> dict[str, Any]:
    """A layer's arguments for the chosen tokens alone."""
    rows, count = chosen.shape
    found = dict(arguments)
    if (pair := found.get("position_embeddings")) is not None:  # (1 or B, T, D) each
        found["position_embeddings"] = tuple(
            each.expand(rows, -1, -1).gather(1, chosen[:, :, None].expand(-1, -1, each.shape[-1]))
            for each in pair
        )
    if (ids := found.get("position_ids")) is not None:
        found["position_ids"] = ids.expand(rows, -1).gather(1, chosen)
    mask = found.get("attention_mask")
    if mask is None:  # causal: those that fill up come after those that count
        return found
    mask = mask.expand(rows, -1, -1, -1)
    mask = mask.gather(2, chosen[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
    mask = mask.gather(3, chosen[:, None, None, :].expand(-1, mask.shape[1], count, -1))
    key = torch.arange(count, device=mask.device)
    hidden = (key >= counts[:, None])[:, None, None, :] & (key[:, None] != key)
    value: Any = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    found["attention_mask"] = mask.masked_fill(hidden, value)
    return found


def _mask_after(before: int, states: Tensor) -> Tensor:
    """Mask (1, 1, K, before + K) of K tokens that come after those of the cache, to be added."""
    count = states.shape[1]
    hidden = torch.ones(count, before + count, dtype=torch.bool, device=states.device).triu(
        before + 1
    )
    return torch.zeros_like(hidden, dtype=states.dtype).masked_fill(
        hidden, torch.finfo(states.dtype).min
    )[None, None]


def route(loaded: LoadedModel, options: "MixtureOfDepths.Options", seed: int) -> Any:
    """Put routers before layers of the model, in place. Raises RecipeError if there would be
    none, or if its layers are of another form."""
    model = loaded.model
    stack, count = layers(model, loaded.adapter_exclude)
    numbers = range(options.every - 1, count, options.every)
    if not numbers:
        problem = f"the model has {count} layers, fewer than {options.every}"
        raise RecipeError(problem, place="adapter.every")
    blocks = model.get_submodule(stack)
    width = model.config.get_text_config().hidden_size
    with seeded(seed, model.device):
        for number in numbers:
            blocks[number] = RoutedLayer(blocks[number], number, width, options.capacity)
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    try:
        with torch.no_grad():
            model.train()(input_ids=ids, use_cache=False)
    except (RunError, RuntimeError, TypeError) as error:
        raise RecipeError(
            f"{type(model).__name__} has layers that cannot be routed: {error}", place="adapter"
        ) from error
    finally:
        model.eval()
    return model


class Prediction(TrainingCallback):
    """Adds the gradient of the loss by which routers predict their own choice: the binary
    cross-entropy of scores, with states that take no gradient of it."""

    def __init__(self, model: nn.Module, weight: float) -> None:
        self.weight = weight
        self.routed = [each for each in model.modules() if isinstance(each, RoutedLayer)]

    def on_gradients_ready(self, loop: "TrainingLoop") -> None:
        scaler = loop.accelerator.scaler
        scale = self.weight * (scaler.get_scale() if scaler else 1.0)
        for layer in self.routed:
            weight = layer.router.weight
            if layer.last is None or weight.grad is None:
                continue
            states, passed = layer.last
            layer.last = None
            with torch.enable_grad():
                scores = F.linear(states.float(), weight).squeeze(-1)
                loss = F.binary_cross_entropy_with_logits(scores, passed)
            (gradient,) = torch.autograd.grad(loss, weight)
            weight.grad.add_(gradient, alpha=scale)
