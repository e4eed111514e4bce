"""Measure trained models: `tunewright evaluate RUN --with NAME`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli_common import AsJson, TrustRemoteCode
from tunewright.cli_inference import Address, Engine, MaxLength, SamplingDefaults, Slots

Arguments = Annotated[
    list[str],
    typer.Argument(
        help="Run folders, then options of the evaluator, such as limit=100.",
        metavar="FOLDER... [NAME=VALUE]...",
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
        help="Folder for the results, with one of each run where there are several. Default: "
        "evaluations/NAME in the run folder."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results, and begin anew.")]


def command(
    arguments: Arguments,
    *,
    evaluator: Evaluator,
    name: Name = None,
    output: Output = None,
    engine: Engine = None,
    address: Address = None,
    slots: Slots = 32,
    max_length: MaxLength = None,
    sampling_defaults: SamplingDefaults = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure trained models.

    Results go to evaluations/NAME in each run folder: results.json, table.md, chart.png, and a line
    of JSON for each example. The same command goes on where an interrupted one was, and shows what
    is complete.
    """
    from tunewright.inference import EngineRequest
    from tunewright_evaluate.arguments import Settings, split
    from tunewright_evaluate.evaluate import evaluate

    folders, options = split(arguments)
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
        engine=engine,
        overwrite=overwrite,
        as_json=as_json,
        trust_remote_code=trust_remote_code,
    )
    evaluate(folders, settings, request)
