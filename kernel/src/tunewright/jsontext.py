"""JSON that people write: one key twice in an object is an error, since a value would be lost."""

from collections import Counter
from typing import Any


class RepeatedKeys(ValueError):
    """An object has some of its keys twice; `keys` names them."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        shown = ", ".join(key if key.isprintable() else ascii(key) for key in keys[:8])
        super().__init__(f"an object has the key {shown[:200]} twice")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `json.loads(…, object_pairs_hook=unique_keys)`. Raises
    RepeatedKeys."""
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise RepeatedKeys([key for key, count in counts.items() if count > 1])
    return found
