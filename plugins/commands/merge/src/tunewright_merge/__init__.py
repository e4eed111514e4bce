"""Merge models of one architecture: `tunewright merge MODEL MODEL … --output FOLDER`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli_common import TrustRemoteCode
from tunewright.cli_inference import Changes


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Run folder, a checkpoint in one, an adapter's folder, a model's folder or a hub "
            "id, with its weight: MODEL=0.5.",
            metavar="MODEL[=WEIGHT]...",
        ),
    ],
    *,
    output: Annotated[Path, typer.Option(help="The new folder.")],
    method: Annotated[
        str,
        typer.Option(help="linear, slerp, task_arithmetic, ties, dare_linear or dare_ties."),
    ] = "linear",
    base: Annotated[
        str | None,
        typer.Option(
            help="The model that the others were trained from; for all methods but linear and "
            "slerp.",
            metavar="MODEL",
        ),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(help="Share of the changes that ties and DARE keep. Default: 0.5."),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--lambda", help="Factor of the merged changes, where there is a base. Default: 1."
        ),
    ] = None,
    soup: Annotated[
        str | None,
        typer.Option(
            help="Average checkpoints of one run: last:3, best:3 (by evaluation), or "
            "step-10,step-20.",
            metavar="CHECKPOINTS",
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="auto (that of the first model, or the base), float32, bfloat16, float16."
        ),
    ] = "auto",
    shard_size: Annotated[
        str, typer.Option(help="Largest size of a file, such as 500MB; also bounds memory.")
    ] = "5GB",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of DARE.")] = 42,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and say what would be merged; write nothing.")
    ] = False,
    changes: Changes = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge models of one architecture into one, tensor by tensor.

    Adapters and checkpoints are merged into their model first. Config, tokenizer and chat template
    are those of the base, or else of the first model. README.md and merge.json in the new folder
    say what was merged. The folder appears only when it is complete.
    """
    from tunewright_merge.arguments import parse
    from tunewright_merge.merge import merge

    asked = parse(
        models,
        method,
        base,
        soup,
        output,
        density=density,
        scale=scale,
        dtype=dtype,
        shard_size=shard_size,
        seed=seed,
    )
    merge(asked, changes or [], trust_remote_code=trust_remote_code, dry_run=dry_run)
    if not dry_run:
        typer.echo(f"{output} holds the merged model")
