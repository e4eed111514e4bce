"""Tunewright: fine-tune large language models. A small kernel; everything else is a plugin.

What a plugin imports stands here. Importing it imports neither torch nor transformers, and pydantic
only when Plugin is asked for: listing plugins does without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tunewright.errors import RecipeError, RowError, RunError, TunewrightError
from tunewright.hookspecs import hookimpl

if TYPE_CHECKING:
    from tunewright.plugin import Format, Plugin, PluginOptions, Stage

__version__ = "0.1.0"

__all__ = [
    "Format",
    "Plugin",
    "PluginOptions",
    "RecipeError",
    "RowError",
    "RunError",
    "Stage",
    "TunewrightError",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in ("Format", "Plugin", "PluginOptions", "Stage"):
        return getattr(importlib.import_module("tunewright.plugin"), name)
    raise AttributeError(f"module 'tunewright' has no attribute {name!r}")
