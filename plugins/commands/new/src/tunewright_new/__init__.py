"""Create a plugin or a recipe: `tunewright plugins new`, `tunewright recipe new`."""

from pathlib import Path
from typing import Annotated

import typer


def new_plugin(
    name: Annotated[str, typer.Argument(help="Name of the plugin in recipes, such as my_logger.")],
    kind: Annotated[
        str, typer.Option(help="Kind of plugin: logger, template, format, … (see plugins list).")
    ],
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder to create. Default: ./tunewright-NAME."),
    ] = None,
    model_type: Annotated[
        str, typer.Option(help="For a family: model_type in the config.json of its checkpoints.")
    ] = "",
) -> None:
    """Create a distribution with a working plugin to start from."""
    from tunewright_new.plugin import write_plugin

    for file in write_plugin(name, kind, folder, model_type):
        print(file)


def new_recipe(
    file: Annotated[Path, typer.Argument(help="File to create.", metavar="[RECIPE]")] = Path(
        "recipe.yaml"
    ),
    model: Annotated[str | None, typer.Option(help="Hub id, folder, or tiny.")] = None,
    family: Annotated[
        str | None, typer.Option(help="Model family. Default: detected from config.json.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template. Default: the family's.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="File, folder, or pattern such as data/*.jsonl.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Training stage, such as sft.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter, such as lora or full.")] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(help="Logger besides the default ones. May be repeated."),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Run folder.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask no questions, use the defaults.")
    ] = False,
) -> None:
    """Create a recipe: asks a few questions and reads the data. Values given as options are not
    asked for."""
    from tunewright_new.recipe import Answers, ask, write_recipe

    given = Answers(model, family, template, data, stage, adapter, logger, output)
    write_recipe(file, ask(given, file, typer.prompt if not yes else None))
