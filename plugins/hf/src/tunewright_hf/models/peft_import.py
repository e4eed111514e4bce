"""Use PEFT without bitsandbytes in processes that have not imported it.

Tested with PEFT 0.21. Its `peft.helpers` imports bitsandbytes wherever that is installed, and so do
its dispatchers when they look at a layer. That takes 0.9 s, PEFT itself 0.1 s.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_bitsandbytes"]


@contextmanager
def without_bitsandbytes() -> Iterator[None]:
    """Inside, PEFT does not find bitsandbytes, unless the process has imported it already.

    A model can only hold layers of bitsandbytes if the process has imported it, so PEFT misses
    nothing. None in sys.modules is Python's documented way to make a module unfindable. What PEFT
    has cached is forgotten on leaving, so that layers of bitsandbytes can come later. Only
    `peft.helpers.KappaTuneSelector` remembers: it does not dequantize then.
    """
    if "bitsandbytes" in sys.modules:
        yield
        return
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["bitsandbytes"]
        if asked := sys.modules.get("peft.import_utils"):
            asked.is_bnb_available.cache_clear()
            asked.is_bnb_4bit_available.cache_clear()
