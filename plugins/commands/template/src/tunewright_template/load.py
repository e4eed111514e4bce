"""An installed template without a recipe, a model or a tokenizer."""

from typing import Any

from tunewright import registry
from tunewright.registry import PluginCaller


def load(name: str) -> PluginCaller:
    """Raises RecipeError where there is no such template. Its plugin has the default options."""
    entry = registry.find("template", name)
    plugin: Any = registry.load(entry)
    return PluginCaller(entry, plugin(plugin.Options(), entry.name))
