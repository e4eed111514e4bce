"""Tunewright: fine-tune large language models. A small kernel; everything else is a plugin.

What a plugin imports stands here. Importing it imports neither torch nor transformers.
"""

from tunewright.errors import RecipeError, RowError, RunError, TunewrightError
from tunewright.hookspecs import hookimpl
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
