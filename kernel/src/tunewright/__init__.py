"""Tunewright: fine-tune large language models. A small kernel; everything else is a plugin.

Names for plugins, and the Python API: `resolve`, `train`, `open_run`. Importing it imports neither
torch nor transformers, and pydantic only when a plugin base class is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tunewright.errors import Problem, RecipeError, RowError, RunError, TunewrightError
from tunewright.hookspecs import hookimpl

if TYPE_CHECKING:
    from tunewright.check import resolve
    from tunewright.launch import Launcher
    from tunewright.plugin import (
        Accelerator,
        Adapter,
        Dataset,
        Engine,
        Evaluator,
        Exporter,
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
    from tunewright.run import open_run, train

__version__ = "0.1.0"
#: modules of the Python API, and of Launcher; the other lazily imported names are base classes of
#: plugins
_API = {
    "Launcher": "tunewright.launch",
    "open_run": "tunewright.run",
    "resolve": "tunewright.check",
    "train": "tunewright.run",
}

__all__ = [
    "Accelerator",
    "Adapter",
    "Dataset",
    "Engine",
    "Evaluator",
    "Exporter",
    "Family",
    "Format",
    "Launcher",
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
    "open_run",
    "resolve",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # everything that is not imported above
        return getattr(importlib.import_module(_API.get(name, "tunewright.plugin")), name)
    raise AttributeError(f"module 'tunewright' has no attribute {name!r}")
