"""`training.epochs=3` on the command line, laid over a recipe's values."""

from typing import Any

from tunewright import yamlio
from tunewright.errors import RecipeError
from tunewright.kinds import sections
from tunewright.source import Source


def override(value: Any, source: Source, text: str) -> None:
    """Lay one `training.epochs=3` over the recipe's value, in place."""
    dotted, equals, written = text.partition("=")
    if not equals or not dotted:
        problem = f"found {text!r}, expected key=value such as training.epochs=3"
        raise RecipeError(problem, place="command line")
    path = tuple(int(key) if key.isdecimal() else key for key in dotted.split("."))
    *parents, last = path
    place, here = f"command line: {dotted}", value
    kinds = sections()
    try:
        for depth, key in enumerate(parents):
            if isinstance(here, dict):
                here.setdefault(key, {})
            if isinstance(here[key], str):  # a section that is only a name
                here[key] = {"name": here[key]}
            elif here[key] is None:
                here[key] = {}
            kind = kinds.get(str(key)) if depth == 0 else None
            if here[key] == {} and kind and kind.required and not kind.many:
                here[key] = {"name": kind.defaults[0]}
            here = here[key]
        here[last] = yamlio.parse(written, place)[0]
    except (TypeError, IndexError, KeyError) as error:
        raise RecipeError("names no field of the recipe", place=place) from error
    source.overridden.add(path)
