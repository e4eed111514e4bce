"""Causal language-model loss over trained positions only.

The model's own forward runs unchanged, whatever wraps it (PEFT, DDP, autocast), with two things
replaced during the call: the head, which scores trained positions in chunks, and transformers'
`loss_function`, which passes the sum on. So logits of all positions never exist, and the loss
leaves the model as one of its outputs, as wrappers expect.

What a family does to its logits after the head (soft-capping, scaling) is measured once on known
numbers. If it is none of the ways known here, the model's own logits are used: correct, with more
memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright import RunError
from tunewright.types import Embedding
from tunewright_hf.losses.chunked_cross_entropy import (
    IGNORED,
    PositionValue,
    TokenWeighting,
    label_logp,
    label_logp_and_entropy,
    trained_positions,
    values_at_labels,
    weighted_sum,
)
from tunewright_hf.losses.pooling import pooled
from tunewright_hf.models.modules import base_model

__all__ = [
    "CausalLoss",
    "replaced",
    "shift",
]


def shift(labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Targets and weights: the label after each position, and its loss weight (0 if ignored). All
    (B, T)."""
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    known = (targets != IGNORED).float()
    return targets, known if weights is None else known * F.pad(weights[:, 1:], (0, 1))


def without_virtual_tokens(model: Any, states: Tensor, length: int) -> Tensor:
    """States (B, T, D) of a batch's own tokens, from states (B, V + T, D).

    Adapters with virtual tokens (prompt tuning) prepend V embeddings. length: T. Raises RunError if
    the lengths do not match.
    """
    more = states.shape[1] - length
    if not more:
        return states
    # only PEFT models have adapter configs, and only some of those have virtual tokens
    configs = getattr(model, "peft_config", {}).values()
    if more not in {getattr(config, "num_virtual_tokens", None) for config in configs}:
        raise RunError(
            f"the model gives states of {states.shape[1]} positions for {length} labels",
            hint="the adapter or the model's class changes the length of rows: use another",
        )
    return states[:, more:]


class CausalLoss:
    """Loss of one model, which may be PEFT-wrapped; the forward that is called may be wrapped
    further."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.base = base_model(model)
        self.vocab = self.base.config.get_text_config().vocab_size

    def __call__(
        self,
        forward: Any,
        inputs: dict[str, Tensor],
        labels: Tensor,
        weights: Tensor | None,
        scale: Any = 1.0,
        token_weighting: TokenWeighting | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (loss, sum): the loss to be backpropagated, scale × sum plus the family's own
        auxiliary loss if it has one; and the sum of weight × negative log-likelihood, without
        gradient. Both scalars.

        forward: the model as wrapped for training. inputs: without labels. labels, weights: (B, T).
        token_weighting: further weights, computed from the logits.
        """
        targets, weights = shift(labels, weights)
        head = self.base.get_output_embeddings()
        is_plain = self._is_plain(head)

        def total(states: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
            # read now: FSDP has gathered them
            parameters = list(head.parameters()) if head is not None else []
            plain = head.weight if is_plain else None
            return weighted_sum(
                states, score, targets, weights, self.vocab, token_weighting, parameters, plain
            )

        loss, made = self._forward(forward, inputs, labels, total, scale)
        return loss, made.detach()

    def _is_plain(self, head: Any) -> bool:
        """Whether logits are just the product of the states and the head's weights."""
        # attributes that libraries override
        is_torchs_own = type(head) is torch.nn.Linear and "forward" not in head.__dict__
        return is_torchs_own and head.bias is None and self.after_head is as_they_are

    def logps(
        self, forward: Any, inputs: dict[str, Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (log-probabilities, auxiliary): of each label, at the position of the token before
        it, 0 if ignored (B, T), nats in fp32; and the family's own auxiliary loss, a scalar, 0 if
        it has none."""
        return self.values(forward, inputs, labels, label_logp)

    def logps_and_entropies(
        self, forward: Any, inputs: dict[str, Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(log-probabilities, entropies, auxiliary): like `logps`, with the entropy (B, T) of the
        distribution that each label is from, nats in fp32."""
        found, auxiliary = self.values(forward, inputs, labels, label_logp_and_entropy)
        return found[..., 0], found[..., 1], auxiliary

    def values(
        self,
        forward: Any,
        inputs: dict[str, Tensor],
        labels: Tensor,
        value: PositionValue,
        *others: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(values, auxiliary): like `logps`, for any `value` of the logits at each label, in fp32
        (B, T, …). others: its further arguments, row by row of the labels that are not ignored."""
        targets = shift(labels, None)[0]

        def each(states: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
            return values_at_labels(states, score, targets, self.vocab, value, *others)

        # the model's output carries the gradient, since wrappers watch it: the auxiliary loss was
        # added to every number
        loss, made = self._forward(forward, inputs, labels, each, 1.0)
        auxiliary = (loss - made).mean()
        places = (targets != IGNORED).nonzero(as_tuple=True)
        found = loss - auxiliary
        whole = torch.zeros(
            (*targets.shape, *found.shape[1:]), dtype=torch.float32, device=found.device
        )
        return whole.index_put(places, found), auxiliary

    def pooled(
        self, forward: Any, inputs: dict[str, Tensor], embedding: Embedding
    ) -> tuple[Tensor, Tensor]:
        """(vectors, auxiliary): vectors of the rows (B, D), fp32; and the family's own auxiliary
        loss, a scalar. inputs: of right-padded rows. Raises RunError for a model whose head is
        called in a way of its own."""
        if self.after_head is None:
            problem = f"the states of {self.base.config.model_type} before its head are not known"
            raise RunError(problem, hint="use a model of another family")
        mask = inputs["attention_mask"]

        def pool(states: Tensor, _: Callable[[Tensor], Tensor]) -> Tensor:
            return pooled(states, mask, embedding)

        loss, made = self._forward(forward, inputs, inputs["input_ids"], pool, 1.0)
        auxiliary = (loss - made).mean()  # it was added to every number
        return loss - auxiliary, auxiliary

    def states(
        self, inputs: dict[str, Tensor], labels: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """States before the head at labels that are not ignored, row by row (N, D), and a function
        that computes logits (N, V) from such states. Without gradients."""
        targets, found = shift(labels, None)[0], []

        def keep(states: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
            found.append((trained_positions(states, targets)[0], score))
            return torch.zeros((), device=states.device)

        with torch.no_grad():
            self._forward(self.model, inputs, labels, keep, 1.0)
        return found[0]  # type: ignore[no-any-return]

    def _forward(
        self,
        forward: Any,
        inputs: dict[str, Tensor],
        labels: Tensor,
        compute: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor],
        scale: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return (scale × result plus the family's auxiliary loss, result): `result` is what
        `compute` returns for the states before the head, and a function that scores them."""
        length = labels.shape[1]
        if self.after_head is None:
            logits = forward(**inputs, use_cache=False).logits
            made = compute(without_virtual_tokens(self.model, logits, length), lambda each: each)
            return made * scale, made
        head, after_head, found = self.base.get_output_embeddings(), self.after_head, []
        own_forward = head.forward

        def in_place_of_logits(states: Tensor) -> Tensor:
            own = without_virtual_tokens(self.model, states, length)
            found.append(compute(own, lambda each: after_head(own_forward(each))))
            return found[0].sum().reshape(1, 1, 1).clone()  # FSDP warns about views

        with (  # transformers' setter of loss_function writes _loss_function
            replaced(head, "forward", in_place_of_logits),
            replaced(self.base, "_loss_function", lambda *_, **__: found[0] * scale),
        ):
            loss = forward(**inputs, labels=labels, use_cache=False).loss
        return loss, found[0]

    @cached_property
    def after_head(self) -> Callable[[Tensor], Tensor] | None:
        """Function that the model applies to its head's output; None if unknown."""
        probes: list[Tensor] = []
        losses: list[bool] = []

        def known_numbers(states: Tensor) -> Tensor:
            shape = torch.Size((*states.shape[:-1], 64))
            probes.append(
                torch.linspace(
                    -100, 100, shape.numel(), device=states.device, dtype=states.dtype
                ).view(shape)
            )
            return probes[0]

        def loss_function(*_: Any, **__: Any) -> Tensor:
            losses.append(True)
            return torch.zeros((), device=probes[0].device)

        head = self.base.get_output_embeddings()
        if head is None:
            return None
        ids = torch.zeros((1, 4), dtype=torch.long, device=next(self.base.parameters()).device)
        training = self.base.training
        self.base.eval()
        try:
            with (
                torch.no_grad(),
                replaced(head, "forward", known_numbers),
                replaced(self.base, "_loss_function", loss_function),
            ):
                logits = self.model(input_ids=ids, labels=ids, use_cache=False).logits
        except (RuntimeError, ValueError):
            return None  # a loss of the model's own, which needs as many columns as its vocabulary
        finally:
            self.base.train(training)
        if len(probes) != 1 or not losses:
            return None
        for way in _ways(self.base.config.get_text_config()):
            if torch.allclose(way(probes[0]).float(), logits.float(), rtol=1e-3, atol=1e-3):
                return way
        return None


def as_they_are(logits: Tensor) -> Tensor:
    return logits


def _ways(config: Any) -> Iterator[Callable[[Tensor], Tensor]]:
    """Known ways in which families change logits. Only some configs have these fields, hence
    getattr."""
    yield as_they_are
    if cap := getattr(config, "final_logit_softcapping", None):
        yield lambda logits: torch.tanh(logits / cap) * cap
    if factor := getattr(config, "logit_scale", None):
        yield lambda logits: logits * factor
    if divisor := getattr(config, "logits_scaling", None):
        yield lambda logits: logits / divisor


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of the instance temporarily; an instance attribute set by other libraries is
    restored."""
    before = owner.__dict__.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        if before is not None:
            setattr(owner, name, before)
