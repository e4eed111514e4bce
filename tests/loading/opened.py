"""Record the files that a test opens."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_opened: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str):
        _opened.append(arguments[0])


sys.addaudithook(_watch)


@contextmanager
def no_pickle_is_opened() -> Iterator[None]:
    global _opened
    _opened = []
    try:
        yield
        assert not [
            name for name in _opened if name.endswith((".bin", ".pt", ".pth", ".pkl", ".mdl"))
        ]
    finally:
        _opened = None
