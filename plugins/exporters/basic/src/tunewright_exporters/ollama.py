"""Write a checkpoint with a Modelfile for Ollama."""

from typing import Any

from tunewright import RecipeError
from tunewright.types import Conversation, ExportRequest, Message, RunContext, TemplateRequest
from tunewright_exporters.go_template import Form, Role, derive
from tunewright_hf.models.export import save_merged


def write(run: RunContext, request: ExportRequest, options: Any) -> None:
    """Write weights and Modelfile. Raises RecipeError where Ollama's template language cannot say
    the trained template."""
    tokenizer = request.loaded.tokenizer
    special = dict(tokenizer.special_tokens_map)
    bos = str(special.get("bos_token", ""))

    def render(messages: list[tuple[Role, str]]) -> str:
        conversation = Conversation([Message(role, text) for role, text in messages])
        asked = TemplateRequest(conversation, True, special, tokenizer)
        text: str = run.call("template", "format_template", asked).text
        return text.removeprefix(bos)  # Ollama writes it itself

    form = derive(render)
    if form is None:
        raise RecipeError(
            f"the template {run.plugin('template').name} cannot be written in Ollama's language",
            place="template",
            hint="export safetensors, and serve them with another program",
        )
    stop = run.plugin("template").info.stop
    save_merged(run, request, request.folder, options.dtype)
    text = modelfile(form, stop, options.context_length)
    (request.folder / "Modelfile").write_text(text, encoding="utf-8")


def modelfile(form: Form, stop: tuple[str, ...], context_length: int | None) -> str:
    """Text of a Modelfile beside the checkpoint."""
    lines = ["FROM .", f'TEMPLATE """{form.as_go()}"""']
    lines += [f'PARAMETER stop "{token}"' for token in stop]
    if context_length is not None:
        lines.append(f"PARAMETER num_ctx {context_length}")
    return "\n".join(lines) + "\n"
