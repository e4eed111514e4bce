"""Checkpoints whose modelling code is on the hub only, as the same computation in a class of
transformers.

A family brings `native.py` with a function `native(config) -> Native | None`, which gets the
checkpoint's config.json and says which class computes the same and which of its tensors each
stored one becomes. No code of the checkpoint is imported.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from tunewright import registry

__all__ = [
    "DECODER",
    "Native",
    "Rule",
    "config_of",
    "drop",
    "heads",
    "normalized",
    "rename",
    "same",
    "split_rows",
]

#: key of a native config.json that holds the original one, so that a saved model knows its origin
MARK = "tunewright_original"

#: names that most decoders of transformers have in common
DECODER = (
    "model.embed_tokens.weight",
    "model.norm.weight",
    "lm_head.weight",
    "model.layers.*.input_layernorm.weight",
    "model.layers.*.post_attention_layernorm.weight",
    *(f"model.layers.*.self_attn.{each}_proj.weight" for each in "qkvo"),
    *(f"model.layers.*.mlp.{each}_proj.weight" for each in ("gate", "up", "down")),
)

_KEPT = (  # keys that have the same meaning in all configs
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings"),
    *("rms_norm_eps", "rope_theta", "rope_scaling", "initializer_range", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One stored tensor, and the native ones that it becomes. In names, `*` stands for a number;
    in those of tensors that become nothing, `**` stands for anything."""

    original: str
    native: tuple[str, ...]  # none: the native class has no place for it
    split: Callable[[Tensor], Sequence[Tensor]] = lambda tensor: (tensor,)
    #: the stored tensor again, of as many as `split` gives
    join: Callable[[Sequence[Tensor]], Tensor] = lambda parts: parts[0]
    #: native names that the original lacks: they keep the value that `split` gives
    constant: tuple[str, ...] = ()
    folded: str = ""  # what `split` does that `join` cannot undo, as it is said to the user


@dataclass(frozen=True, slots=True)
class Native:
    """A checkpoint in terms of transformers' classes."""

    config: dict[str, Any]  # the native config.json
    rules: tuple[Rule, ...]
    notes: tuple[str, ...] = ()  # what is not as in the original; each is said at load


def find(config: Mapping[str, Any]) -> Native | None:
    """The native form of a checkpoint with this config.json; None where there is none.

    The family that its model_type belongs to says so. Raises what the family's function raises for
    a config that lacks a key.
    """
    owner = {point.name: point.value for point in registry.group("model_type")}
    name = owner.get(str(config.get("model_type")))
    if name is None or config.get("quantization_config"):
        return None
    package = registry.find("family", name).value.partition(":")[0].partition(".")[0]
    if find_spec(f"{package}.native") is None:
        return None
    made: Native | None = import_module(f"{package}.native").native(config)
    return made


def config_of(model_type: str, config: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A native config: `fields`, and of `config` the keys that mean the same everywhere."""
    kept = {key: config[key] for key in _KEPT if key in config}
    return {"model_type": model_type} | kept | fields


# ---- rules ---------------------------------------------------------------------------------------


def same(*names: str) -> tuple[Rule, ...]:
    """Tensors that have the same name in both."""
    return tuple(Rule(name, (name,)) for name in names)


def rename(names: Mapping[str, str]) -> tuple[Rule, ...]:
    """Tensors that only have another name: original → native."""
    return tuple(Rule(original, (native,)) for original, native in names.items())


def drop(*names: str) -> tuple[Rule, ...]:
    """Tensors that the native class computes itself, or has no place for."""
    return tuple(Rule(name, ()) for name in names)


def split_rows(original: str, native: Sequence[str], rows: Sequence[int]) -> Rule:
    """Matrices, or biases, that are stored one below the other; rows: of each."""
    return Rule(original, tuple(native), lambda tensor: tensor.split(list(rows)), torch.cat)


def heads(original: str, native: Sequence[str], groups: int, sizes: Sequence[int]) -> Rule:
    """Projections that are stored group by group of attention heads.

    sizes: rows of each projection in one group, so that the stored tensor is
    (groups * sum(sizes), …).
    """

    def split(tensor: Tensor) -> Sequence[Tensor]:
        by_group = tensor.unflatten(0, (groups, sum(sizes)))
        return [part.flatten(0, 1) for part in by_group.split(list(sizes), dim=1)]

    def join(parts: Sequence[Tensor]) -> Tensor:
        by_group = [part.unflatten(0, (groups, -1)) for part in parts]
        return torch.cat(by_group, dim=1).flatten(0, 1)

    return Rule(original, tuple(native), split, join)


def normalized(name: str) -> Rule:
    """A head whose rows are divided by their L2 norm in each forward pass (NormHead).

    Halves are divided in float32: the reader's dtype rounds once.
    """

    def split(tensor: Tensor) -> Sequence[Tensor]:
        wide = tensor.float() if tensor.element_size() < 4 else tensor
        return (nn.functional.normalize(wide),)

    folded = (
        f"the normalisation of {name} is folded into its numbers, and full tuning trains them as "
        "they then are"
    )
    return Rule(name, (name,), split, folded=folded)


def lookup(rules: Sequence[Rule], name: str) -> tuple[Rule, tuple[str, ...]] | None:
    """The rule of a stored tensor, and the numbers in its name."""
    for rule in rules:
        if (match := _pattern(rule.original).fullmatch(name)) is not None:
            return rule, match.groups()
    return None


def lookup_native(rules: Sequence[Rule], name: str) -> tuple[Rule, tuple[str, ...], int] | None:
    """The rule that gives a native tensor, the numbers in its name, and which of the rule's it
    is."""
    for rule in rules:
        for part, native in enumerate(rule.native):
            if (match := _pattern(native).fullmatch(name)) is not None:
                return rule, match.groups(), part
    return None


def fill(name: str, numbers: Sequence[str]) -> str:
    """The name with numbers in place of its stars."""
    rest = iter(numbers)
    return re.sub(r"\*", lambda _: next(rest), name)


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*\*", ".*").replace(r"\*", r"(\d+)"))


# ---- constants -----------------------------------------------------------------------------------


def hold_constants(model: Any, rules: Sequence[Rule]) -> None:
    """Make parameters that the original lacks buffers: they are saved, and nothing trains them.

    Quantized ones, which nothing trains either, stay.
    """
    for name, parameter in list(model.named_parameters()):
        if parameter.is_floating_point() and _is_constant(name, rules):
            module, leaf = _owner(model, name)
            delattr(module, leaf)
            module.register_buffer(leaf, parameter.detach())


def release_constants(model: Any, rules: Sequence[Rule]) -> None:
    """Make them parameters again, for code that expects a layer's own parameters."""
    for name, buffer in list(model.named_buffers()):
        if _is_constant(name, rules):
            module, leaf = _owner(model, name)
            delattr(module, leaf)
            module.register_parameter(leaf, nn.Parameter(buffer, requires_grad=False))


def _is_constant(name: str, rules: Sequence[Rule]) -> bool:
    patterns = (_pattern(constant) for rule in rules for constant in rule.constant)
    return any(pattern.fullmatch(name) for pattern in patterns)


def _owner(model: Any, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
