"""The web workbench: train, watch, chat and export in a browser."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path, typer.Argument(help="Workspace: the folder with recipes, data and `runs/`.")
]
Host = Annotated[str, typer.Option(help="Address to listen on. Others than loopback need a token.")]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on. 0: any that is free.")
]
Socket = Annotated[
    Path | None,
    typer.Option(
        help="Unix socket to listen on in place of a port, which only this user can open."
    ),
]
Allow = Annotated[
    list[Path] | None,
    typer.Option(help="Further folder from which models and data may be read. Repeat."),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="Name under which browsers reach this server, besides localhost. Repeat."),
]
RootPath = Annotated[
    str, typer.Option(help="Path under which a proxy shows this server, such as /proxy/7860/.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File with the token of this server. Default: one in the workspace."),
]
Slot = Annotated[
    list[str] | None,
    typer.Option(
        "--slot",
        metavar="DEVICES",
        help="Devices of one job at a time, as in CUDA_VISIBLE_DEVICES, such as 0,1. Repeat for "
        "jobs side by side. Default: one job at a time, on all devices.",
    ),
]
TrustRemoteCode = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-remote-code",
        metavar="MODEL",
        help="Run Python code that comes with this model, given as in the recipe. Repeat.",
    ),
]


def command(
    folder: Folder = Path(),
    host: Host = "127.0.0.1",
    port: Port = 7860,
    socket: Socket = None,
    allow: Allow = None,
    allow_host: AllowHost = None,
    root_path: RootPath = "",
    token_file: TokenFile = None,
    slot: Slot = None,
    trust_remote_code: TrustRemoteCode = None,
) -> None:
    """Train, watch, chat and export in a browser.

    The address is printed, with a token in it: open it once. Jobs go on when the browser is closed
    and when this server ends. Ctrl-C ends it.
    """
    from tunewright_web.start import Settings, serve

    serve(
        Settings(
            root=folder,
            host=host,
            port=port,
            socket=socket,
            allowed=tuple(allow or ()),
            hosts=tuple(allow_host or ()),
            root_path=root_path,
            token_file=token_file,
            slots=tuple(slot or ("",)),
            trusted=tuple(trust_remote_code or ()),
        )
    )
