"""Arguments that verbs with an inference engine share."""

from typing import Annotated

import typer

Target = Annotated[
    str,
    typer.Argument(
        help="Run folder, a checkpoint in one, an adapter's folder, a model's folder, or a hub id.",
        metavar="MODEL",
    ),
]
ModelOverrides = Annotated[
    list[str] | None,
    typer.Argument(help="Fields to change, such as template=chatml.", metavar="[NAME=VALUE]..."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Field to change, such as template=chatml. Repeat."
    ),
]
Engine = Annotated[str | None, typer.Option(help="Inference engine. Default: the recipe's.")]
Address = Annotated[
    str | None, typer.Option(help="Address of a server that runs already (remote engines).")
]
Slots = Annotated[int, typer.Option(min=1, help="Answers that are generated at once.")]
MaxLength = Annotated[
    int | None, typer.Option(min=1, help="Tokens of a prompt and its answer. Default: the model's.")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Sampling temperature. 0: greedy decoding. Default: the checkpoint's "
        "generation_config.json, else 0.",
    ),
]
SamplingDefaults = Annotated[bool, typer.Option(help="Take sampling settings from the checkpoint.")]
