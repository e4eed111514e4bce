"""Translate configurations of other programs: `tunewright import llamafactory FILE`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Program = Literal["axolotl", "llamafactory", "swift", "trl"]


def command(
    program: Annotated[Program, typer.Argument(help="the program that the file was written for")],
    source: Annotated[
        Path,
        typer.Argument(
            help="its configuration (for trl and swift also a shell script), or a folder of them"
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(help="new recipe, or folder of recipes; default: standard output"),
    ] = None,
) -> None:
    """Translate a configuration of another program to a recipe.

    Every key is translated, or stands in a comment with the reason. Paths of data become relative
    to the recipe.
    """
    from tunewright_import.files import translate_file, translate_folder

    if source.is_dir():
        translate_folder(program, source, to)
    else:
        translate_file(program, source, to)
