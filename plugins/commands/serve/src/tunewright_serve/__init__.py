"""Serve a model over HTTP, with the wires of OpenAI and Anthropic."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tunewright.cli_common import TrustRemoteCode
from tunewright.cli_inference import Address, Engine, MaxLength, ModelOverrides, Slots, Target

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on. 0: any that is free.")
]
Name = Annotated[
    str | None, typer.Option(help="Model name that clients give. Default: the folder's name.")
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter", metavar="NAME=PATH", help="Serve an adapter, too, as a model. Repeat."
    ),
]
Queue = Annotated[
    int, typer.Option(min=0, help="Requests that may wait; with more, clients get 429.")
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds for an answer.")]
Idle = Annotated[
    float | None,
    typer.Option(
        min=0.01, help="Unload the model after so many minutes without a request. Default: never."
    ),
]
Drain = Annotated[
    int, typer.Option(min=0, help="Seconds that open answers may go on after SIGTERM.")
]
Defaults = Annotated[
    Literal["checkpoint", "none"],
    typer.Option(
        help="Settings of requests that give none. checkpoint: generation_config.json. none: "
        "greedy decoding."
    ),
]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the token that clients send. Default: a random one.")
]
NoToken = Annotated[
    bool, typer.Option("--no-token", help="Ask for no token; on a loopback address only.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="Name under which clients reach this server, besides localhost. Repeat."),
]
AllowMediaHost = Annotated[
    list[str] | None,
    typer.Option(
        help="Host from which images, videos and audio that requests name are fetched. Default: "
        "none. Repeat."
    ),
]


def command(
    model: Target,
    overrides: ModelOverrides = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    name: Name = None,
    adapter: Adapters = None,
    engine: Engine = None,
    address: Address = None,
    slots: Slots = 32,
    queue: Queue = 256,
    max_length: MaxLength = None,
    timeout: Timeout = 600,
    drain: Drain = 30,
    idle_minutes: Idle = None,
    sampling_defaults: Defaults = "checkpoint",
    token_file: TokenFile = None,
    no_token: NoToken = False,
    allow_host: AllowHost = None,
    allow_media_host: AllowMediaHost = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve a model over HTTP, trained here or not.

    Clients of OpenAI's and Anthropic's APIs can use it. Address and token are printed when it is
    ready. Ctrl-C or SIGTERM ends it, after the open answers.
    """
    from tunewright.inference import EngineRequest
    from tunewright.terminal import told
    from tunewright_hf.inference.opening import open_target
    from tunewright_serve.start import Settings, serve

    settings = Settings(
        host=host,
        port=port,
        name=name or Path(model).expanduser().resolve().name,
        token_file=token_file,
        no_token=no_token,
        hosts=tuple(allow_host or ()),
        media_hosts=tuple(allow_media_host or ()),
        timeout=timeout,
        drain=drain,
        idle_minutes=idle_minutes,
        open_requests=slots + queue,
    )
    request = EngineRequest(
        slots=slots,
        max_waiting=queue,
        max_length=max_length,
        adapters=settings.adapters(adapter or []),
        address=address,
        sampling_defaults=sampling_defaults == "checkpoint",
    )
    given = [*(overrides or []), *([] if engine is None else [f"engine={engine}"])]
    run = open_target(model, given, trust_remote_code=trust_remote_code, on_event=told)
    serve(run, request, settings)
