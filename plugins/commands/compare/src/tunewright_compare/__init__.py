"""Compare trained runs: `tunewright compare RUN RUN …`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli_common import AsJson


def command(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Run folders: the `output` of trained recipes.", metavar="FOLDER..."),
    ],
    html: Annotated[
        Path | None,
        typer.Option(help="HTML file to write, with curves; it loads nothing from the network."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Predictions that are shown side by side.")
    ] = 5,
    as_json: AsJson = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the HTML file.")] = False,
) -> None:
    """Compare runs: metrics, recipes, and predictions side by side.

    Metrics are those of training and of `tunewright evaluate`. Of recipes, the fields that differ
    are shown. Predictions are those of evaluations with the same name and prompts.
    """
    from tunewright.cli_common import print_json
    from tunewright_compare.comparison import compare
    from tunewright_compare.page import write_page
    from tunewright_compare.text import print_comparison

    found = compare(folders, samples)
    if as_json:
        print_json(found.as_json())
    else:
        print_comparison(found)
    if html is not None:
        write_page(found, html, overwrite=overwrite)
        typer.echo(f"{html} holds the comparison")
