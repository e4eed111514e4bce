"""Resolve a recipe: find each section's plugin, import it and check its options, once.

The command line, `recipe check`, runs and the web page all use the result. All problems are
collected, not only the first.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunewright import yamlio
from tunewright.errors import RecipeError
from tunewright.overrides import override
from tunewright.resolved import Choice, Resolved, ResolvedStage, choose
from tunewright.resolver import Resolver
from tunewright.source import RecipeProblems, Source

__all__ = [
    "Choice",
    "RecipeProblems",
    "Resolved",
    "ResolvedStage",
    "Source",
    "choose",
    "resolve",
    "with_values",
]


def resolve(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    look: bool = False,
    source: Source | None = None,
    combined: bool = True,
) -> Resolved:
    """Read, check and complete a recipe.

    recipe: a YAML file, or its values as a mapping. overrides: `training.epochs=3`, applied to it.
    look: whether to check that data sources exist. source: where a mapping was written, for errors.
    combined: whether plugins may object to each other.

    Relative data paths start at the file's folder, those of a mapping at the current one. Imports
    the plugins that the recipe names, and neither torch nor transformers. Raises RecipeProblems, a
    RecipeError, with all problems.
    """
    if isinstance(recipe, Mapping):
        value: Any = _copied(dict(recipe))
        source, root = source or Source(), Path.cwd()
    else:
        path = Path(recipe)
        value, lines = yamlio.read(path)
        source, root = Source(str(path), lines), path.resolve().parent
        if not isinstance(value, dict):
            problem = "found no sections, expected at least model, data, stage and output"
            raise RecipeError(problem, place=str(path))
    for text in overrides:
        override(value, source, text)
    if value.get("data_root") is None:
        value["data_root"] = str(root)
    return Resolver(value, source, look).resolved(combined)


def _copied(value: Any) -> Any:
    """Copy a mapping's values in the form that a YAML file would give: the caller's are not
    changed."""
    match value:
        case Mapping():
            return {key: _copied(item) for key, item in value.items()}
        case list() | tuple():
            return [_copied(item) for item in value]
        case BaseModel():
            return value.model_dump(mode="json")
        case os.PathLike():
            return os.fspath(value)
    return value


def with_values(resolved: Resolved, **changes: Any) -> Resolved:
    """The recipe resolved again with other top-level values."""
    again = resolve(resolved.recipe.as_mapping() | changes, source=resolved.source)
    return replace(again, smoke_of=resolved.smoke_of)
