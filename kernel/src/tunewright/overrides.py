"""Overrides on the command line, such as `training.epochs=3`."""

from typing import Any

from tunewright import yamlio
from tunewright.errors import RecipeError
from tunewright.kinds import Kind, sections
from tunewright.source import Source, shortened
from tunewright.yamlio import Path_


def override(value: Any, source: Source, text: str) -> None:
    """Apply one override such as `training.epochs=3` to the recipe's value, in place."""
    dotted, equals, written = text.partition("=")
    if not equals or not dotted:
        problem = f"found {shortened(text)!r}, expected key=value such as training.epochs=3"
        raise RecipeError(problem, place="command line")
    place = f"command line: {shortened(dotted)}"
    try:
        path = tuple(int(key) if key.isdecimal() else key for key in dotted.split("."))
        here = value
        for depth in range(1, len(path)):
            here = _inner(here, path[:depth])
        here[path[-1]] = yamlio.parse(written, place)[0]
    except (TypeError, IndexError, KeyError, ValueError) as error:
        raise RecipeError("names no field of the recipe", place=place) from error
    source.overridden.add(path)
    _take_over(value, path)


def named_values(written: list[str]) -> dict[str, Any]:
    """Options of a plugin on the command line: NAME=VALUE with a YAML value. Raises RecipeError."""
    found: dict[str, Any] = {}
    for each in written:
        name, equals, value = each.partition("=")
        if not equals or not name:
            problem = f"found {shortened(each)!r}, expected NAME=VALUE"
            raise RecipeError(problem, place="command line")
        found[name] = yamlio.parse(value, f"command line: {shortened(name)}")[0]
    return found


def _inner(here: Any, path: Path_) -> Any:
    """Value at `path`, whose last key is one of `here`, as a container of fields."""
    key = path[-1]
    kind = sections().get(str(path[0]))
    is_section = path in (("stage",), (path[0],) if kind else ())
    is_section = is_section or (
        len(path) == 2 and (path[0] == "stages" or bool(kind and kind.many))
    )
    if isinstance(here, dict):
        here.setdefault(key, None)
    if isinstance(here[key], str) and is_section:  # a section that is only a name
        here[key] = {"name": here[key]}
    elif here[key] is None:
        here[key] = {"name": name} if (name := _named(here, path, kind)) else {}
    return here[key]


def _named(recipe: Any, path: Path_, kind: Kind | None) -> Any:
    """Plugin for a section that is missing in the recipe."""
    if kind is None or len(path) > 1 or kind.many:
        return None
    training = recipe.get("training")
    short = training.get(kind.shorthand) if kind.shorthand and isinstance(training, dict) else None
    return short or (kind.defaults[0] if kind.required and kind.defaults else None)


def _take_over(value: dict[str, Any], path: Path_) -> None:
    """Remove a section that the command line replaces by its shorthand, or the other way round."""
    for key, kind in sections().items():
        training = value.get("training")
        if not kind.shorthand:
            continue
        if path == ("training", kind.shorthand):
            value.pop(key, None)
        elif path[0] == key and isinstance(training, dict):
            training.pop(kind.shorthand, None)
