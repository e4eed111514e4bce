"""Checks for the fields of adapter_config.json. Imports no library, so that plugins can list their
fields with it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "COMMON",
    "DROPOUT",
    "FLAG",
    "NAMES",
    "NAMES_OR_PATTERN",
    "PROMPT",
    "RANK",
    "SCALE",
    "TOKENS",
    "TOKENS_BY_MODULE",
    "Check",
    "by_module",
    "is_name",
    "number",
    "one_of",
    "whole",
]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,300}")
_MAX_ITEMS = 50_000  # a mixture of experts names the layers of each expert
_MAX_PATTERN = 10_000  # characters


@dataclass(frozen=True)
class Check:
    """Condition on a value."""

    expected: str  # for the error
    holds: Callable[[Any, int], bool]  # (value, largest sensible rank) → valid


def is_name(value: Any) -> bool:
    """Whether it is a plain module name, without regular-expression syntax."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def whole(low: int, high: int) -> Check:
    """Integer between low and high."""
    return Check(
        f"a whole number from {low} to {high}",
        lambda value, _: type(value) is int and low <= value <= high,
    )


def number(low: float, high: float) -> Check:
    """Number between low and high, not NaN."""
    return Check(
        f"a number from {low} to {high}",
        lambda value, _: type(value) in (int, float) and low <= value <= high,
    )


def one_of(*values: Any) -> Check:
    """One of several values of the same type."""
    return Check(
        f"one of {', '.join(map(str, values))}",
        lambda value, _: any(type(value) is type(each) and value == each for each in values),
    )


def by_module(check: Check) -> Check:
    """A value for some modules, by name or pattern."""
    return Check(
        f"an object: module name → {check.expected}",
        lambda value, largest: (
            isinstance(value, dict)
            and len(value) <= _MAX_ITEMS
            and all(0 < len(key) <= _MAX_PATTERN for key in value)
            and all(check.holds(each, largest) for each in value.values())
        ),
    )


def _names(value: Any, _: int) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_ITEMS and all(map(is_name, value))


def _layers(value: Any, _: int) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return len(numbers) <= 10_000 and all(
        type(each) is int and 0 <= each < 10_000 for each in numbers
    )


def _ids(value: Any, _: int = 0) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_ITEMS
        and all(type(each) is int and 0 <= each < 100_000_000 for each in value)
    )


def _ids_by_module(value: Any, _: int) -> bool:
    if not isinstance(value, dict):
        return _ids(value)
    return len(value) <= 10 and all(is_name(key) and _ids(each) for key, each in value.items())


FLAG = Check("true or false", lambda value, _: isinstance(value, bool))
RANK = Check(
    "a whole number from 1 to twice the width of the model's layers",
    lambda value, largest: type(value) is int and 1 <= value <= largest,
)
SCALE = number(0, 100_000)
DROPOUT = Check(
    "a number from 0 to below 1", lambda value, _: type(value) in (int, float) and 0 <= value < 1
)
NAMES = Check("a list of module names", _names)
TOKENS = Check("a list of token ids", _ids)
TOKENS_BY_MODULE = Check(
    "a list of token ids, or an object: module name → such a list", _ids_by_module
)
NAMES_OR_PATTERN = Check(
    "a list of module names, or a regular expression",
    lambda value, _: 0 < len(value) <= _MAX_PATTERN if isinstance(value, str) else _names(value, _),
)

#: fields of most adapter types
COMMON: dict[str, Check] = {
    "target_modules": NAMES_OR_PATTERN,
    "exclude_modules": NAMES_OR_PATTERN,
    "modules_to_save": NAMES,
    "fan_in_fan_out": FLAG,
    "layers_to_transform": Check("a layer's number, or a list of them", _layers),
    "layers_pattern": Check(
        "a module name, or a list of them",
        lambda value, _: is_name(value) or _names(value, _),
    ),
}

#: fields of prompt learning; PEFT fills in all but the first from the model
PROMPT: dict[str, Check] = {
    "num_virtual_tokens": whole(1, 100_000),
    "token_dim": whole(1, 1_000_000),
    "num_transformer_submodules": whole(1, 2),
    "num_attention_heads": whole(1, 100_000),
    "num_layers": whole(1, 100_000),
}
