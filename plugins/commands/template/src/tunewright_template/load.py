"""Load an installed template without a recipe, a model or a tokenizer."""

from typing import Any

from tunewright import RecipeError, registry
from tunewright.registry import PluginCaller
from tunewright_hf.models import listed


def load(name: str) -> PluginCaller:
    """Load a template by its name with the default options, or by a listed checkpoint's id with
    the options that suit it. Raises RecipeError if there is none."""
    options: dict[str, Any] = {}
    if "/" in name:
        found = listed.find(name)
        if found is None:
            problem, hint = f"no installed family lists {name}", "tunewright models lists all"
            raise RecipeError(problem, place="command line", hint=hint)
        name, options = found.template, found.template_options
    entry = registry.find("template", name)
    plugin: Any = registry.load(entry)
    return PluginCaller(entry, plugin(plugin.Options(**options), entry.name))
