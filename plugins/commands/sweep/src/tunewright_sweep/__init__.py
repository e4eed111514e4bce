"""Search hyperparameters of a recipe: `tunewright sweep RECIPE --vary FIELD=VALUES`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tunewright.cli_common import RecipePath, TrustRemoteCode

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Fields to change in all trials.", metavar="[KEY=VALUE]..."),
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        help="A field and its values: 'adapter.rank=[8, 16, 32]', or a range: "
        "'training.learning_rate={low: 1e-5, high: 1e-3, log: true}'. Of two integers the values "
        "are integers; step: their distance. Repeat it for each field.",
        metavar="KEY=VALUES",
    ),
]
Space = Annotated[
    Path | None,
    typer.Option(help="YAML file of fields and their values, as in --vary.", metavar="FILE"),
]
Output = Annotated[
    Path, typer.Option(help="Folder of the sweep: trials, results, best recipe.", metavar="FOLDER")
]
Sampler = Annotated[
    Literal["tpe", "random", "grid"],
    typer.Option(
        help="How values are chosen. tpe: by the results so far (Tree-structured Parzen "
        "Estimator). random: independently. grid: each combination once."
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(min=1, help="Trials. Default: 20; with grid, all combinations."),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="Metric to compare: METRIC or SET_METRIC of the evaluations, such as "
        "validation_loss. Default: the loss of the first evaluation set; without evaluation data, "
        "the training loss."
    ),
]
Maximize = Annotated[
    bool | None,
    typer.Option(
        "--maximize/--minimize",
        help="Whether a higher metric is better. Default: yes, unless its name ends in loss.",
    ),
]
Prune = Annotated[
    bool,
    typer.Option(
        help="Stop a trial whose evaluation is worse than the median of the others at that step."
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="Trials that run at once.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the search.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the sweep in the folder.")]


def command(
    recipe: RecipePath,
    output: Output,
    overrides: Overrides = None,
    vary: Vary = None,
    space: Space = None,
    sampler: Sampler = "tpe",
    trials: Trials = None,
    metric: Metric = None,
    maximize: Maximize = None,
    prune: Prune = False,
    jobs: Jobs = 1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train a recipe with different values of some fields, and find the best.

    Each trial is a run of its own in FOLDER/trials, started by `tunewright train`, so `launch`
    applies to it. The same command goes on where a killed one was. FOLDER then holds best.yaml,
    results.json and results.png.
    """
    from tunewright_sweep.search import Asked, sweep

    asked = Asked(
        recipe=recipe,
        overrides=tuple(overrides or ()),
        varied=tuple(vary or ()),
        space=space,
        output=output,
        sampler=sampler,
        trials=trials,
        metric=metric,
        maximize=maximize,
        prune=prune,
        jobs=jobs,
        seed=seed,
        trust_remote_code=trust_remote_code,
    )
    sweep(asked, overwrite=overwrite)
