"""Show how templates render conversations, and read replies."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Look at templates.", no_args_is_help=True)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="an installed template, such as chatml")],
    example: Annotated[
        Literal["simple", "multi", "system", "tools", "thinking"],
        typer.Option(help="which conversation to render"),
    ] = "simple",
    generation_prompt: Annotated[
        bool, typer.Option("--generation-prompt", help="end where the model begins to write")
    ] = False,
) -> None:
    """Render an example conversation.

    What a model is trained to write is on green, or in ⟦ ⟧ where there is no colour. <bos_token>
    and its like stand where the tokenizer's own special tokens go.
    """
    from tunewright_template.show import show_example

    show_example(name, example, generation_prompt)


@app.command()
def render(
    name: Annotated[str, typer.Argument(help="an installed template, such as chatml")],
    source: Annotated[
        Path,
        typer.Option(
            "--input", help="JSON lines with messages and, if you like, tools; - is standard input"
        ),
    ],
    bos: Annotated[str, typer.Option(help="the tokenizer's BOS token")] = "<bos_token>",
    eos: Annotated[str, typer.Option(help="the tokenizer's EOS token")] = "<eos_token>",
    generation_prompt: Annotated[
        bool, typer.Option("--generation-prompt", help="end where the model begins to write")
    ] = False,
    variables: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="a variable for the template; JSON, or text"
        ),
    ] = None,
) -> None:
    """Render conversations, without a tokenizer.

    One JSON object a line comes out for each that goes in: `text` and `trained`, a list of [start,
    end) in characters, or `error`.
    """
    from tunewright_template.render import render_lines

    special = {"bos_token": bos, "eos_token": eos}
    for line in render_lines(name, source, special, generation_prompt, _variables(variables or [])):
        typer.echo(json.dumps(line, ensure_ascii=False))


@app.command()
def parse(
    name: Annotated[str, typer.Argument(help="an installed template, such as qwen3")],
    source: Annotated[
        Path, typer.Option("--input", help="a file with one generated reply; - is standard input")
    ] = (Path("-")),
    tools: Annotated[
        Path | None,
        typer.Option(
            help="a JSON list of the tools on offer, whose schemas tell the types of arguments"
        ),
    ] = None,
) -> None:
    """Take a generated reply apart: its text, thinking and calls of tools, as one JSON object."""
    from tunewright_template.render import parse_reply, read_text

    offered = None if tools is None else json.loads(read_text(tools))
    typer.echo(json.dumps(parse_reply(name, read_text(source), offered), ensure_ascii=False))


def _variables(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE, where the value is JSON, or text where it is none."""
    found: dict[str, Any] = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
