"""Answer a data set with a trained model: `tunewright predict RUN --data FILE --output FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli_common import TrustRemoteCode
from tunewright.cli_inference import (
    Address,
    Engine,
    MaxLength,
    SamplingDefaults,
    Slots,
    Temperature,
)

Folder = Annotated[
    Path,
    typer.Argument(help="Run folder: the `output` of a trained recipe.", metavar="FOLDER"),
]
Data = Annotated[
    str,
    typer.Option(
        metavar="FILE|ENTRY",
        help="Data to answer: a file, folder or pattern; the name of a set of the recipe's "
        "eval_data, or `data`; or a source as the recipe writes it, such as "
        "'{path: a.jsonl, format: alpaca}'.",
    ),
]
Output = Annotated[Path, typer.Option(help="File of JSON lines to write.", metavar="FILE")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens of an answer.")]
TopP = Annotated[
    float | None, typer.Option(max=1, help="Nucleus sampling. Default: the checkpoint's.")
]
TopK = Annotated[int | None, typer.Option(min=0, help="Top-k sampling. Default: the checkpoint's.")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="Seed of sampling: a row's answer is then the same each time."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Rows to answer, from the start.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the file, and answer all rows anew.")
]


def command(
    folder: Folder,
    data: Data,
    output: Output,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    limit: Limit = None,
    engine: Engine = None,
    address: Address = None,
    slots: Slots = 32,
    max_length: MaxLength = None,
    sampling_defaults: SamplingDefaults = True,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Answer a data set with a trained model.

    The last answer of each conversation is predicted from all before it. A line has the prompt, the
    prediction with its tool calls, and the answer of the data as the label, in the order of the
    data. The same command goes on where a killed one was. A row that cannot be answered has its
    error in its line; the exit code is then 1.
    """
    from tunewright.inference import EngineRequest, GenerateRequest
    from tunewright.recipe import Section
    from tunewright.run import open_run
    from tunewright_predict.write import write

    run = open_run(folder, trust_remote_code=trust_remote_code)
    if engine is not None:
        run.use("engine", Section(name=engine))
    opened = EngineRequest(
        slots=slots,
        max_waiting=slots,
        max_length=max_length,
        address=address,
        sampling_defaults=sampling_defaults,
    )
    asked = GenerateRequest(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
    )
    write(run, opened, asked, data, output, limit=limit, overwrite=overwrite)
