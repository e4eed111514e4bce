"""Tunewright: fine-tune large language models. A small kernel; everything else is a plugin.

What a plugin imports stands here. Importing it imports neither torch nor transformers, and pydantic
only when Plugin is asked for: listing plugins does without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tunewright.errors import Problem, RecipeError, RowError, RunError, TunewrightError
from tunewright.hookspecs import hookimpl

if TYPE_CHECKING:
    from tunewright.plugin import (
        Accelerator,
        Adapter,
        Dataset,
        Engine,
        Family,
        Format,
        Logger,
        Optimizer,
        Plugin,
        PluginOptions,
        Quantizer,
        Reward,
        Scheduler,
        Stage,
        Template,
    )

__version__ = "0.1.0"
_BASES = (
    "Accelerator",
    "Adapter",
    "Dataset",
    "Engine",
    "Family",
    "Format",
    "Logger",
    "Optimizer",
    "Plugin",
    "PluginOptions",
    "Quantizer",
    "Reward",
    "Scheduler",
    "Stage",
    "Template",
)

__all__ = [
    "Accelerator",
    "Adapter",
    "Dataset",
    "Engine",
    "Family",
    "Format",
    "Logger",
    "Optimizer",
    "Plugin",
    "PluginOptions",
    "Problem",
    "Quantizer",
    "RecipeError",
    "Reward",
    "RowError",
    "RunError",
    "Scheduler",
    "Stage",
    "Template",
    "TunewrightError",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in _BASES:
        return getattr(importlib.import_module("tunewright.plugin"), name)
    raise AttributeError(f"module 'tunewright' has no attribute {name!r}")
