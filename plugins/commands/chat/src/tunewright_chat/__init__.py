"""Chat with a model in the terminal."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli_common import TrustRemoteCode
from tunewright.cli_inference import Engine, ModelOverrides, SamplingDefaults, Target, Temperature

if TYPE_CHECKING:
    from tunewright_chat.session import Session
    from tunewright_chat.settings import Settings

Messages = Annotated[
    list[str] | None,
    typer.Option(
        "--message",
        "-m",
        help="Send this message and print only the reply. Repeat for further turns.",
    ),
]
Beside = Annotated[
    str | None,
    typer.Option(
        "--with",
        metavar="MODEL",
        help="Second model, which answers side by side; or the NAME of an --adapter.",
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter", metavar="NAME=PATH", help="Adapter to switch to with /adapter NAME. Repeat."
    ),
]
System = Annotated[str | None, typer.Option(help="System message.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens of a reply.")]
Tools = Annotated[
    Path | None,
    typer.Option(help="JSON list of tools in OpenAI's format. You type their results."),
]
RunTools = Annotated[
    Path | None,
    typer.Option(
        help="Python file of yours with a function for each tool: calls are run, with the "
        "arguments that the model chooses."
    ),
]


def command(
    model: Target,
    overrides: ModelOverrides = None,
    message: Messages = None,
    beside: Beside = None,
    adapter: Adapters = None,
    system: System = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = None,
    tools: Tools = None,
    run_tools: RunTools = None,
    sampling_defaults: SamplingDefaults = True,
    engine: Engine = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Chat with a model, trained here or not.

    Without --message the chat is interactive: /help shows its commands, Ctrl-C stops a reply,
    Ctrl-D leaves. Without a terminal, messages are the lines of standard input.
    """
    from tunewright import RecipeError
    from tunewright.inference import EngineRequest
    from tunewright_chat import plain
    from tunewright_chat.settings import Settings, read_tools
    from tunewright_chat.talk import Talk
    from tunewright_chat.tool_code import ToolCode
    from tunewright_hf.inference.opening import parse_adapters

    settings = Settings(system, read_tools(tools) if tools else [])
    settings.values["max_new_tokens"] = max_new_tokens
    if temperature is not None:
        settings.values["temperature"] = temperature
    if run_tools:
        if not settings.tools:
            raise RecipeError("there are no tools", place="command line: --run-tools")
        settings.code = ToolCode(run_tools, settings.tools)
    adapters = parse_adapters(adapter or [])
    request = EngineRequest(slots=1, adapters=adapters, sampling_defaults=sampling_defaults)
    if beside in adapters:
        request.slots = 2  # one engine answers for both
    given = [*(overrides or []), *([] if engine is None else [f"engine={engine}"])]
    with ExitStack() as opened:
        sessions = [_opened(model, given, request, settings, opened, trust_remote_code)]
        if beside in adapters:
            sessions.append(sessions[0].with_adapter(beside))
        elif beside is not None:
            request = replace(request, adapters={})  # they belong to the first model
            sessions.append(_opened(beside, given, request, settings, opened, trust_remote_code))
        talk = Talk(sessions, settings)
        for text in message or ():
            plain.say(talk, text)
        if not message:
            _converse(talk)


def _opened(
    target: str,
    overrides: list[str],
    request: Any,
    settings: "Settings",
    opened: ExitStack,
    trust_remote_code: bool,
) -> "Session":
    from tunewright.terminal import told
    from tunewright_chat.session import Session
    from tunewright_hf.inference.opening import open_target

    run = open_target(target, overrides, trust_remote_code=trust_remote_code, on_event=told)
    engine = opened.enter_context(run.call("engine", "open_engine", request))
    if found := engine.defaults.given():
        sampling = ", ".join(f"{name} {value}" for name, value in found.items())
        print(f"(the checkpoint's sampling: {sampling})", file=sys.stderr)
    session = Session(target, engine, run.plugin("template").info, settings)
    session.about = f"template {run.template.name}" if run.template else ""
    return session


def _converse(talk: Any) -> None:
    from tunewright_chat import plain

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return plain.converse(talk)
    from rich.console import Console

    from tunewright_chat import terminal
    from tunewright_chat.history import history

    console = Console(highlight=False)
    if console.is_dumb_terminal:
        return plain.converse(talk)
    return terminal.converse(talk, console, history())
