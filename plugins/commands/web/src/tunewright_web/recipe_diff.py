"""Fields in which two recipes differ."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["differences", "flat"]


def flat(value: Any, at: str = "") -> dict[str, str]:
    """Field → value as text: `adapter.rank` → `8`. Lists of plain values are one field."""
    if isinstance(value, Mapping) and value:
        parts = {f"{at}.{key}" if at else str(key): each for key, each in value.items()}
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        parts = {f"{at}[{number}]": each for number, each in enumerate(value)}
    else:
        return {at: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
    return {name: text for key, each in parts.items() for name, text in flat(each, key).items()}


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> list[tuple[str, str | None, str | None]]:
    """Field, value here, value there: None where it is absent. The output always differs and is
    left out."""
    left, right = flat(one), flat(other)
    names = [*left, *(name for name in right if name not in left)]
    return [
        (name, left.get(name), right.get(name))
        for name in names
        if left.get(name) != right.get(name) and name != "output"
    ]
