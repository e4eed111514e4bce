"""Commands that show the data as the model sees it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tunewright.cli_common import AsJson
from tunewright_data.as_json import print_json

app = typer.Typer(help="Look at the data of a recipe, or prepare it.", no_args_is_help=True)

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Fields to change, such as training.epochs=3.", metavar="[KEY=VALUE]..."),
]
StageNumber = Annotated[
    int, typer.Option(min=1, help="Number of the recipe's stage; 1 is the first.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum records to read from each source.")]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the tokenizer.")
]


@app.command()
def preview(
    recipe: RecipePath,
    overrides: Overrides = None,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="Examples to print.")] = 3,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Also print the id and text of each token.")
    ] = False,
    png: Annotated[
        Path | None,
        typer.Option(help="PNG file to write the images, videos and audio of the examples to."),
    ] = None,
    stage: StageNumber = 1,
    limit: Limit = None,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    """Print rows as the model will see them.

    Then what was dropped and why, and how long rows are. What is trained is on green, or in ⟦ ⟧
    where there is no colour. Images, videos and audio are their placeholders in the text, with
    their numbers of tokens above it. No weights are loaded, only the tokenizer.
    """
    from tunewright_data.preview import show

    _check_folder(png)
    run, request = _asked(recipe, overrides, stage, limit, trust_remote_code)
    found = run.plugin("dataset").preview(run, request, count)
    if as_json:
        print_json(found)
    else:
        show(found, request.loaded.tokenizer if tokens else None)
    if png:
        from tunewright import RunError
        from tunewright_data.contact_sheet import draw

        if not any(sample.media for sample in found.samples):
            raise RunError("the examples have no media to draw", place="command line: --png")
        draw(found.samples, png)


@app.command()
def stats(
    recipe: RecipePath,
    overrides: Overrides = None,
    png: Annotated[Path | None, typer.Option(help="PNG file to write charts to.")] = None,
    stage: StageNumber = 1,
    limit: Limit = None,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    """Count what rows have: tokens, lengths, turns, roles, repeated rows, rows that are left out
    and why.

    No weights are loaded, only the tokenizer.
    """
    from tunewright_data.stats import show

    _check_folder(png)
    run, request = _asked(recipe, overrides, stage, limit, trust_remote_code)
    found = run.plugin("dataset").stats(run, request)
    if as_json:
        print_json(found)
    else:
        show(found)
    if png:
        from tunewright_data.draw import draw

        draw(found, png)


@app.command()
def prepare(
    recipe: RecipePath,
    overrides: Overrides = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Folder to write to. Other machines read it with dataset.prepared=FOLDER, "
                "without the sources."
            )
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help=(
                "I/N: only every N-th source, or file of a source of more than 1 GB, from the I-th "
                "on; 0 is the first. For N hosts with one cache, or whose folders of --to are "
                "copied into one."
            )
        ),
    ] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Render and tokenise the data of all stages ahead of time, in one process without a GPU.

    Training finds it in the cache, or in the folder that --to names. No weights are loaded, only
    the tokenizer.
    """
    from tunewright import check
    from tunewright.run import Run
    from tunewright_data.prepare import prepare_all, share_of, written_to

    share = share_of(shard)
    run = Run(
        check.resolve(recipe, [*(overrides or []), *written_to(to)]),
        trust_remote_code=trust_remote_code,
    )
    prepare_all(run, to, share)


def _check_folder(png: Path | None) -> None:
    from tunewright import RecipeError

    if png and not png.parent.is_dir():
        hint = f"make the folder {png.parent} first"
        raise RecipeError(f"there is no folder for {png}", place="command line: --png", hint=hint)


def _asked(
    recipe: Path, overrides: list[str] | None, stage: int, limit: int | None, trust: bool
) -> tuple[Any, Any]:
    """Return the run and the data request of a stage."""
    from tunewright import RecipeError, check
    from tunewright.run import Run

    run = Run(check.resolve(recipe, overrides or []), trust_remote_code=trust)
    if stage > len(run.recipe.stages):
        raise RecipeError(
            f"found {stage}, the recipe has {len(run.recipe.stages)}", place="command line: --stage"
        )
    return run, run.data_request(run.load(weights="none"), stage - 1, limit)
