"""JSON output of a dataset plugin's `preview` and `stats`."""

import json
from dataclasses import fields, is_dataclass
from typing import Any


def print_json(found: Any) -> None:
    """Print a dataclass. Arrays of numbers become lists."""
    print(json.dumps(_plain(found), indent=1, ensure_ascii=False))


def _plain(value: Any) -> Any:
    # not dataclasses.asdict, which turns a Counter into a Counter of its items
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [_plain(item) for item in value] if hasattr(value, "__iter__") else str(value)
