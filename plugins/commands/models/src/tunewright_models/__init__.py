"""List the checkpoints of the installed families, and convert weights that are pickles."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from tunewright.cli_common import AsJson
from tunewright.terminal import printable


class _ListByDefault(TyperGroup):
    """`models qwen` is `models list qwen`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    help="List checkpoints that families know, or convert one. `models FILTER` is `models list "
    "FILTER`.",
)


@app.command("list")
def list_(
    words: Annotated[
        str,
        typer.Argument(metavar="FILTER", help="Words in the id, the model's name or the family."),
    ] = "",
    family: Annotated[str | None, typer.Option(help="Only checkpoints of this family.")] = None,
    kind: Annotated[
        Literal["base", "chat"] | None, typer.Option(help="Only base models, or only chat models.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List checkpoints: hub, size, template, licence.

    Other checkpoints work as well: the family is detected from config.json, the template from the
    tokenizer.
    """
    from tunewright_models.listing import as_text, checkpoints, select, to_json

    found = select(checkpoints(), words, family, kind)
    typer.echo(to_json(found) if as_json else as_text(found))


@app.command()
def convert(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder, or id on the Hugging Face hub.")
    ],
    to: Annotated[Path, typer.Option(help="Folder to write. It must not exist yet.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")
    ] = None,
) -> None:
    """Convert weights that are pickles (pytorch_model.bin) to safetensors.

    Pickles can run code. They are read here with torch's restricted unpickler, in a process without
    network and with limits on memory and time; training never reads them. Config, tokenizer and
    code are copied.
    """
    from tunewright_models import conversion

    made = conversion.convert(model, revision, to)
    told = f"{made.folder}: {made.tensors} tensors in {made.files} safetensors files"
    typer.echo(printable(f"{told}; the pickles were read {made.isolation}"))
