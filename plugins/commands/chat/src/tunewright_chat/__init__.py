"""Talk to a trained model in the terminal."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[
        Path, typer.Argument(help="a run folder: the `output` of a recipe that was trained", metavar="FOLDER")
    ],
    message: Annotated[
        list[str] | None,
        typer.Option("--message", "-m", help="say this and print only the reply; again for the next turn"),
    ] = None,
    system: Annotated[str | None, typer.Option(help="a system message to begin with")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest reply, in tokens")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token")] = 0.0,
    engine: Annotated[str | None, typer.Option(help="what answers; without it the recipe's own engine")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run Python code that comes with the model")
    ] = False,
) -> None:
    """Talk to a trained model.

    Without --message this is a conversation: /clear begins anew, /exit or Ctrl-D leaves, Ctrl-C ends a reply.
    """
    from tunewright.recipe import Section
    from tunewright.run import open_run
    from tunewright_chat.session import Session, converse

    run = open_run(folder, trust_remote_code=trust_remote_code)
    if engine is not None:
        run.use("engine", Section(name=engine))
    session = Session(run, system, max_new_tokens, temperature)
    if message:
        for text in message:
            session.say(text)
    else:
        converse(session)
