"""Export a trained model, checked against the run: `tunewright export RUN --to FORMAT`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright import RecipeError
from tunewright.cli_common import TrustRemoteCode


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A run folder: the `output` of a recipe that was trained.", metavar="FOLDER"
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Options of the format, such as dtype=bfloat16.", metavar="NAME=VALUE"),
    ] = None,
    *,
    to: Annotated[
        str, typer.Option(help="Format, such as safetensors: an exporter of `plugins list`.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The new folder. Default: FOLDER-FORMAT.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="A LoRA adapter with its weight, FOLDER=0.5, in place of the run's own; several "
            "are combined into one."
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            help="Upload the export: hf:ORG/NAME, modelscope:ORG/NAME or modelers:ORG/NAME. The "
            "token is read from HF_TOKEN, MODELSCOPE_API_TOKEN or MODELERS_TOKEN. An export that "
            "exists is uploaded as it is."
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public. Default: private.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Export a trained model, and compare what was written with the run.

    The export is loaded again as other programs load it. Its logits have to equal the run's, its
    tokenizer has to give the same tokens; export.json says what was found. The folder appears only
    if all this holds.
    """
    from tunewright_export.push import parse_target
    from tunewright_export.push import push as upload
    from tunewright_export.write import is_export

    output = output or folder.with_name(f"{folder.name}-{to}")
    target = parse_target(push) if push else None
    if not target or not is_export(output, to):
        _export(folder, to, output, options or [], adapter or [], trust_remote_code)
    if target:
        upload(output, target, private=not public)
        typer.echo(f"uploaded to {target.hub.name}: {target.repository}")


def _export(
    folder: Path, to: str, output: Path, options: list[str], adapters: list[str], trust: bool
) -> None:
    from tunewright.run import open_run
    from tunewright_export.parts import parse_parts
    from tunewright_export.write import export

    if output.exists():
        hint = "name a new folder: --output"
        raise RecipeError("exists already", place=str(output), hint=hint)
    run = open_run(folder, trust_remote_code=trust)
    export(run, to, options, output, parse_parts(adapters))
    typer.echo(f"{output} holds the model")
