"""Look at the data as the model will see it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at the data of a recipe.", no_args_is_help=True)


@app.command()
def preview(
    recipe: Annotated[Path, typer.Argument(help="the recipe, a YAML file", metavar="RECIPE")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="what to change in it", metavar="[KEY=VALUE]...")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="rows to print")] = 3,
    stage: Annotated[int, typer.Option(min=1, help="which of the recipe's stages")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="records to read of each source")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run Python code that comes with the tokenizer")
    ] = False,
) -> None:
    """Print rows as the model will see them.

    Then what was dropped and why, and how long rows are. What is trained is on green, or in ⟦ ⟧ where there
    is no colour. No weights are loaded, only the tokenizer.
    """
    from tunewright import RecipeError, check
    from tunewright.run import Run
    from tunewright_data.preview import show

    run = Run(*check.read(recipe, overrides), trust_remote_code=trust_remote_code)
    if stage > len(run.recipe.stages):
        raise RecipeError(f"found {stage}, the recipe has {len(run.recipe.stages)}", place="command line: --stage")
    request = run.data_request(run.load(weights=False), stage - 1, limit)
    show(run.plugin("dataset").preview(run, request, count))
