"""Answer a data set: `tunewright predict MODEL --data FILE --output FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli_common import TrustRemoteCode
from tunewright.cli_inference import (
    Address,
    Changes,
    Engine,
    MaxLength,
    SamplingDefaults,
    Slots,
    Target,
    Temperature,
)

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
    model: Target,
    data: Data,
    output: Output,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    limit: Limit = None,
    changes: Changes = None,
    engine: Engine = None,
    address: Address = None,
    slots: Slots = 32,
    max_length: MaxLength = None,
    sampling_defaults: SamplingDefaults = True,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Answer a data set with a model, trained here or not.

    The last answer of each conversation is predicted from all before it. A line has the prompt, the
    prediction with its tool calls, and the answer of the data as the label, in the order of the
    data. The same command goes on where a killed one was. A row that cannot be answered has its
    error in its line; the exit code is then 1.

    A classifier gives a label and scores for each text, a reranker a score for each document.
    """
    from tunewright.inference import EngineRequest, GenerateRequest
    from tunewright.terminal import told
    from tunewright_hf.inference.opening import open_target
    from tunewright_predict import heads
    from tunewright_predict.heads import answers_with_text, refuse_sampling
    from tunewright_predict.write import write

    given = [*(changes or []), *([] if engine is None else [f"engine={engine}"])]
    run = open_target(model, given, data=True, trust_remote_code=trust_remote_code, on_event=told)
    if not answers_with_text(run):
        sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
        others = {"engine": engine, "address": address, "max_length": max_length}
        refuse_sampling(sampling | others)
        heads.write(run, data, output, changes or [], limit=limit, overwrite=overwrite)
        return
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
    write(run, opened, asked, data, output, changes or [], limit=limit, overwrite=overwrite)
