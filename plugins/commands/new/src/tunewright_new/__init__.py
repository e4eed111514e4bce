"""Begin a plugin or a recipe: `tunewright plugins new`, `tunewright recipe new`."""

from pathlib import Path
from typing import Annotated

import typer


def new_plugin(
    name: Annotated[str, typer.Argument(help="what recipes will call it, such as my_logger")],
    kind: Annotated[
        str, typer.Option(help="what it is: logger, template, format, … (tunewright plugins list)")
    ],
    folder: Annotated[
        Path | None,
        typer.Option(help="where to write it, a folder that is not there yet; ./tunewright-NAME"),
    ] = None,
    model_type: Annotated[
        str, typer.Option(help="of a family: the model_type in the config.json of its checkpoints")
    ] = "",
) -> None:
    """Write a distribution with a plugin that works: a place to begin."""
    from tunewright_new.plugin import write_plugin

    for file in write_plugin(name, kind, folder, model_type):
        print(file)


def new_recipe(
    file: Annotated[Path, typer.Argument(help="the recipe to write", metavar="[RECIPE]")] = Path(
        "recipe.yaml"
    ),
    model: Annotated[str | None, typer.Option(help="a hub id, a folder, or tiny")] = None,
    family: Annotated[
        str | None, typer.Option(help="where the model's config.json does not tell it")
    ] = None,
    template: Annotated[str | None, typer.Option(help="where it is not the family's own")] = None,
    data: Annotated[
        str | None, typer.Option(help="a file, a folder, or a pattern such as data/*.jsonl")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="what is done, such as sft")] = None,
    adapter: Annotated[
        str | None, typer.Option(help="which parameters are trained, such as lora or full")
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(help="who is told besides the default loggers; may be repeated"),
    ] = None,
    output: Annotated[str | None, typer.Option(help="the run folder")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="ask nothing: take the default of what is not given")
    ] = False,
) -> None:
    """Write a recipe: a few questions, a look at the data. What is given as an option is not
    asked."""
    from tunewright_new.recipe import Answers, ask, write_recipe

    given = Answers(model, family, template, data, stage, adapter, logger, output)
    write_recipe(file, ask(given, file, typer.prompt if not yes else None))
