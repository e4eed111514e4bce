"""Export a model, checked against the original: `tunewright export MODEL --to FORMAT`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright import RecipeError
from tunewright.cli_common import TrustRemoteCode
from tunewright.cli_inference import Changes, Target


def command(
    model: Target,
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Options of the format, such as dtype=bfloat16.", metavar="NAME=VALUE"),
    ] = None,
    *,
    to: Annotated[
        str, typer.Option(help="Format, such as safetensors: an exporter of `plugins list`.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The new folder. Default: MODEL-FORMAT.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="A LoRA adapter with its weight, FOLDER=0.5, in place of the model's own; several "
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
    changes: Changes = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Export a model, trained here or not, and compare what was written with the original.

    The export is loaded again as other programs load it. Its logits have to equal the model's, its
    tokenizer has to give the same tokens; export.json says what was found. The folder appears only
    if all this holds.
    """
    from tunewright.terminal import told
    from tunewright_export.parts import parse_parts
    from tunewright_export.push import parse_target
    from tunewright_export.push import push as upload
    from tunewright_export.write import export, is_export
    from tunewright_hf.inference.opening import open_target

    output = output or _beside(model, to)
    target = parse_target(push) if push else None
    if not target or not is_export(output, to):
        if output.exists():
            hint = "name a new folder: --output"
            raise RecipeError("exists already", place=str(output), hint=hint)
        how = {"data": True, "trust_remote_code": trust_remote_code}
        run = open_target(model, changes or [], on_event=told, **how)
        export(run, to, options or [], output, parse_parts(adapter or []))
        typer.echo(f"{output} holds the model")
    if target:
        upload(output, target, private=not public)
        typer.echo(f"uploaded to {target.hub.name}: {target.repository}")


def _beside(model: str, to: str) -> Path:
    """The default folder: beside the model's, or in the current folder for one of a hub."""
    folder = Path(model).expanduser()
    place = folder if folder.exists() else Path(folder.name)
    return place.with_name(f"{place.name}-{to}")
