"""Render conversations with templates, and parse replies."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Look at templates.", no_args_is_help=True)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of an installed template, such as chatml, or of a listed checkpoint."
        ),
    ],
    example: Annotated[
        Literal["simple", "multi", "system", "tools", "thinking"],
        typer.Option(help="Conversation to render."),
    ] = "simple",
    generation_prompt: Annotated[
        bool, typer.Option("--generation-prompt", help="End with the generation prompt.")
    ] = False,
) -> None:
    """Render an example conversation.

    Trained text is green, or in ⟦ ⟧ without colour. <bos_token> and the like stand for the
    tokenizer's special tokens.
    """
    from tunewright_template.show import show_example

    show_example(name, example, generation_prompt)


@app.command()
def render(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of an installed template, such as chatml, or of a listed checkpoint."
        ),
    ],
    source: Annotated[
        Path,
        typer.Option(
            "--input", help="JSON lines with messages and, optionally, tools. -: standard input."
        ),
    ],
    bos: Annotated[str, typer.Option(help="BOS token of the tokenizer.")] = "<bos_token>",
    eos: Annotated[str, typer.Option(help="EOS token of the tokenizer.")] = "<eos_token>",
    generation_prompt: Annotated[
        bool, typer.Option("--generation-prompt", help="End with the generation prompt.")
    ] = False,
    variables: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Variable for the template; JSON, or text."
        ),
    ] = None,
) -> None:
    """Render conversations, without a tokenizer.

    Prints one JSON object per input line: `text` and `trained`, a list of [start, end) in
    characters, or `error`.
    """
    from tunewright_template.render import render_lines

    special = {"bos_token": bos, "eos_token": eos}
    for line in render_lines(name, source, special, generation_prompt, _variables(variables or [])):
        typer.echo(json.dumps(line, ensure_ascii=False))


@app.command()
def parse(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of an installed template, such as qwen3, or of a listed checkpoint."
        ),
    ],
    source: Annotated[
        Path, typer.Option("--input", help="File with one generated reply. -: standard input.")
    ] = (Path("-")),
    tools: Annotated[
        Path | None,
        typer.Option(
            help="JSON list of the available tools. Their schemas give the types of arguments."
        ),
    ] = None,
) -> None:
    """Parse a generated reply: text, thinking, tool calls, and boxes in images, as one JSON
    object."""
    from tunewright_template.render import parse_reply, read_text, read_tools

    offered = None if tools is None else read_tools(tools)
    typer.echo(json.dumps(parse_reply(name, read_text(source), offered), ensure_ascii=False))


def _variables(given: list[str]) -> dict[str, Any]:
    """Parse NAME=VALUE. The value is JSON, or else text."""
    found: dict[str, Any] = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
