"""List the checkpoints that the installed families know."""

from typing import Annotated, Literal

import typer


def command(
    words: Annotated[
        str,
        typer.Argument(
            metavar="FILTER", help="words that stand in the id, the model's name or the family's"
        ),
    ] = "",
    family: Annotated[str | None, typer.Option(help="only this family's")] = None,
    kind: Annotated[
        Literal["base", "chat"] | None, typer.Option(help="only what was trained for this")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list, for programs")] = False,
) -> None:
    """List checkpoints: where to get them, size, template, licence.

    Others load as well: a family is found by a checkpoint's config.json, and its template by its
    tokenizer.
    """
    from tunewright_models.listing import as_text, checkpoints, select, to_json

    found = select(checkpoints(), words, family, kind)
    typer.echo(to_json(found) if as_json else as_text(found))
