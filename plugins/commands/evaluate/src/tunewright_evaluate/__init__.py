"""Measure trained models: `tunewright evaluate RUN --with NAME`."""

from pathlib import Path
from typing import Annotated

import typer

Arguments = Annotated[
    list[str],
    typer.Argument(
        help="run folders, then options of the evaluator, such as limit=100",
        metavar="FOLDER... [NAME=VALUE]...",
    ),
]
Evaluator = Annotated[
    str,
    typer.Option(
        "--with", metavar="NAME", help="evaluator, such as generation: see `plugins list`"
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="name of the results' folder. Default: that of the evaluator."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="folder for the results, with one of each run where there are several. Default: "
        "evaluations/NAME in the run folder."
    ),
]
Engine = Annotated[str | None, typer.Option(help="inference engine. Default: the recipe's.")]
Address = Annotated[
    str | None, typer.Option(help="address of a server that runs already (remote engines).")
]
Slots = Annotated[int, typer.Option(min=1, help="answers that are generated at once.")]
MaxLength = Annotated[
    int | None,
    typer.Option(min=1, help="tokens of a prompt and its answer. Default: the model's."),
]
SamplingDefaults = Annotated[bool, typer.Option(help="take sampling settings from the checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace results, and begin anew.")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="run Python code that comes with the model.")
]


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
