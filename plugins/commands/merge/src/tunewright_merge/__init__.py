"""Merge models of one architecture: `tunewright merge MODEL MODEL … --output FOLDER`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli_common import TrustRemoteCode
from tunewright.cli_inference import Changes

Models = Annotated[
    list[str],
    typer.Argument(
        help="Run folder, a checkpoint in one, an adapter's folder, a model's folder or a hub id, "
        "with its weight: MODEL=0.5.",
        metavar="MODEL[=WEIGHT]...",
    ),
]
Output = Annotated[Path, typer.Option(help="The new folder.")]
Method = Annotated[
    str, typer.Option(help="linear, slerp, task_arithmetic, ties, dare_linear or dare_ties.")
]
Base = Annotated[
    str | None,
    typer.Option(
        help="The model that the others were trained from; for all methods but linear and slerp.",
        metavar="MODEL",
    ),
]
Density = Annotated[
    float | None, typer.Option(help="Share of the changes that ties and DARE keep. Default: 0.5.")
]
Scale = Annotated[
    float | None,
    typer.Option(
        "--lambda", help="Factor of the merged changes, where there is a base. Default: 1."
    ),
]
Soup = Annotated[
    str | None,
    typer.Option(
        help="Average checkpoints of one run: last:3, best:3 (by evaluation), step-10,step-20, or "
        "greedy: those that do not raise the loss on its eval_data.",
        metavar="CHECKPOINTS",
    ),
]
Dtype = Annotated[
    str, typer.Option(help="auto: that of the base or first model; float32, bfloat16, float16.")
]
ShardSize = Annotated[
    str, typer.Option(help="Largest size of a file, such as 500MB; also bounds memory.")
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed of DARE.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check and say what would be merged; write nothing.")
]


def command(
    models: Models,
    *,
    output: Output,
    method: Method = "linear",
    base: Base = None,
    density: Density = None,
    scale: Scale = None,
    soup: Soup = None,
    dtype: Dtype = "auto",
    shard_size: ShardSize = "5GB",
    seed: Seed = 42,
    dry_run: DryRun = False,
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
