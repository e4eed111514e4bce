"""The verbs of `tunewright recipe`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunewright.cli_common import AsJson, Overrides, RecipePath, print_json
from tunewright.terminal import printable

if TYPE_CHECKING:
    from tunewright.check import Resolved

HELP = "Check a recipe, show it with its defaults, print its schema."


def check(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a recipe against the plugins that it names. Nothing is loaded."""
    from tunewright.check import RecipeProblems, resolve
    from tunewright.detection import detect_family
    from tunewright.errors import RecipeError

    try:
        resolved = resolve(recipe, overrides or [], look=True)
        made = resolved.recipe
        if made.family is None and Path(made.model).expanduser().exists():
            detect_family(made.model)
    except RecipeError as error:
        if not as_json:
            raise
        one = {"path": [], "place": error.place, "message": error.problem, "hint": error.hint}
        found = error.as_json() if isinstance(error, RecipeProblems) else [one]
        print_json({"problems": found})
        raise typer.Exit(2) from None
    notes = _unread(resolved)
    if as_json:
        print_json({"problems": [], "notes": notes})
        return
    for line in notes:
        print(printable(line))
    print(printable(f"{recipe}: good"))


def _unread(resolved: "Resolved") -> list[str]:
    """Lines on what nothing reads in the data."""
    from tunewright.context import Run
    from tunewright.types import LoadedModel

    run = Run(resolved)
    stages = range(len(resolved.stages))
    requests = [run.data_request(LoadedModel(None, None), number) for number in stages]
    return [line for each in requests for line in run.plugin("dataset").unread(run, each)]


def show(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print a recipe with every default written out."""
    from tunewright.check import resolve

    whole = resolve(recipe, overrides or []).recipe.as_dict()
    if as_json:
        print_json(whole)
    else:
        import yaml

        print(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), end="")


def schema() -> None:
    """Print a JSON schema of recipes, made from the installed plugins, for editors."""
    from tunewright.schema_cache import schema

    print_json(schema())


VERBS: dict[str, Callable[..., None]] = {"check": check, "show": show, "schema": schema}
