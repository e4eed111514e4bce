"""The verbs of `tunewright recipe`."""

from collections.abc import Callable
from pathlib import Path

import typer

from tunewright.cli_common import AsJson, Overrides, RecipePath, print_json
from tunewright.terminal import printable

HELP = "Check a recipe, show it with its defaults, print its schema."


def check(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a recipe against the plugins that it names. Nothing is loaded."""
    from tunewright import context
    from tunewright.check import RecipeProblems, resolve
    from tunewright.errors import RecipeError

    try:
        made = resolve(recipe, overrides or [], look=True).recipe
        if made.family is None and Path(made.model).expanduser().exists():
            context.detect_family(made)
    except RecipeError as error:
        if not as_json:
            raise
        one = {"path": [], "place": error.place, "message": error.problem, "hint": error.hint}
        found = error.as_json() if isinstance(error, RecipeProblems) else [one]
        print_json({"problems": found})
        raise typer.Exit(2) from None
    if as_json:
        print_json({"problems": []})
    else:
        print(printable(f"{recipe}: good"))


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
