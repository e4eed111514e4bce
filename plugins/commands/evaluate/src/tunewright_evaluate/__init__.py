"""Measure models: `tunewright evaluate MODEL --with NAME`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli_common import AsJson, TrustRemoteCode
from tunewright.cli_inference import Address, Changes, Engine, MaxLength, SamplingDefaults, Slots

Arguments = Annotated[
    list[str],
    typer.Argument(
        help="Run folders, checkpoints in them, folders of adapters or models, or hub ids; then "
        "options of the evaluator, such as limit=100.",
        metavar="MODEL... [NAME=VALUE]...",
    ),
]
Evaluator = Annotated[
    str,
    typer.Option(
        "--with", metavar="NAME", help="Evaluator, such as generation: see `plugins list`."
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="Name of the results' folder. Default: that of the evaluator."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the results, with one of each model where there are several. Default: "
        "evaluations/NAME in the run folder; evaluations/MODEL/NAME here for other models."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results, and begin anew.")]


def command(
    arguments: Arguments,
    *,
    evaluator: Evaluator,
    name: Name = None,
    output: Output = None,
    changes: Changes = None,
    engine: Engine = None,
    address: Address = None,
    slots: Slots = 32,
    max_length: MaxLength = None,
    sampling_defaults: SamplingDefaults = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure models, trained here or not.

    Results go to evaluations/NAME in each run folder, or here: results.json, table.md, chart.png,
    and a line of JSON for each example. The same command goes on where an interrupted one was, and
    shows what is complete.
    """
    from tunewright.inference import EngineRequest
    from tunewright_evaluate.arguments import Settings, split
    from tunewright_evaluate.evaluate import evaluate

    targets, options = split(arguments)
    request = EngineRequest(
        slots=slots,
        max_waiting=2 * slots,
        max_length=max_length,
        address=address,
        sampling_defaults=sampling_defaults,
    )
    settings = Settings(
        evaluator=evaluator,
        options=options,
        name=name or evaluator.rpartition(":")[2],
        output=output,
        changes=changes or [],
        engine=engine,
        overwrite=overwrite,
        as_json=as_json,
        trust_remote_code=trust_remote_code,
    )
    evaluate(targets, settings, request)
