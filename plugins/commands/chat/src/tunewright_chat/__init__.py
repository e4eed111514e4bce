"""Talk to a trained model in the terminal."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tunewright import RecipeError


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="a run folder: the `output` of a recipe that was trained", metavar="FOLDER"
        ),
    ],
    message: Annotated[
        list[str] | None,
        typer.Option(
            "--message", "-m", help="say this and print only the reply; again for the next turn"
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="a system message to begin with")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest reply, in tokens")] = 512,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 always takes the likeliest token")
    ] = 0.0,
    tools: Annotated[
        Path | None,
        typer.Option(
            help="a JSON list of tools to offer, in OpenAI's schema; you say what they give"
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="what answers; without it the recipe's own engine")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run Python code that comes with the model")
    ] = False,
) -> None:
    """Talk to a trained model.

    Without --message this is a conversation: /clear begins anew, /exit or Ctrl-D leaves, Ctrl-C
    ends a reply.
    """
    from tunewright.recipe import Section
    from tunewright.run import open_run
    from tunewright_chat.session import Session, converse

    run = open_run(folder, trust_remote_code=trust_remote_code)
    if engine is not None:
        run.use("engine", Section(name=engine))
    session = Session(run, system, max_new_tokens, temperature, _read(tools) if tools else [])
    if message:
        for text in message:
            session.say(text)
    else:
        converse(session)


def _read(tools: Path) -> list[dict[str, Any]]:
    """Raises RecipeError where the file is no JSON list of objects."""
    try:
        found = json.loads(tools.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot be read: {error}", place=str(tools)) from error
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise RecipeError("expected a JSON list of tools in OpenAI's schema", place=str(tools))
    return [
        tool if "function" in tool else {"type": "function", "function": tool} for tool in found
    ]
