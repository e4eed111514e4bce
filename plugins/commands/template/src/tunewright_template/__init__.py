"""Show how a template renders a conversation."""

from typing import Annotated, Literal

import typer

app = typer.Typer(help="Look at templates.", no_args_is_help=True)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="an installed template, such as chatml")],
    example: Annotated[
        Literal["simple", "multi", "system", "tools", "thinking"], typer.Option(help="which conversation to render")
    ] = "simple",
    generation_prompt: Annotated[
        bool, typer.Option("--generation-prompt", help="end where the model begins to write")
    ] = False,
) -> None:
    """Render an example conversation.

    What a model is trained to write is on green, or in ⟦ ⟧ where there is no colour. <bos_token> and
    its like stand where the tokenizer's own special tokens go.
    """
    from tunewright_template.show import show_example

    show_example(name, example, generation_prompt)
