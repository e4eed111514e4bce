"""Render an example without a model or a tokenizer."""

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from tunewright.terminal import printable, show_trained
from tunewright.types import Conversation, TemplateRequest
from tunewright_template.examples import EXAMPLES
from tunewright_template.load import load

SPECIAL = {name: f"<{name}>" for name in ("bos_token", "eos_token", "unk_token", "pad_token")}


def show_example(name: str, example: str, generation_prompt: bool) -> None:
    """Print the example as the template renders it.

    Raises RecipeError if the template is not installed, RowError if it does not support such a
    conversation.
    """
    handle = load(name)
    info = handle.plugin.info
    conversation = EXAMPLES[example]
    if generation_prompt:
        conversation = Conversation(conversation.messages[:-1], conversation.tools)
    request = TemplateRequest(
        conversation, add_generation_prompt=generation_prompt, special_tokens=SPECIAL
    )
    rendered = handle.call("format_template", run=None, request=request)
    console = Console()
    colour = console.is_terminal and not console.no_color
    console.print(show_trained(rendered.text, rendered.trained, colour=colour), soft_wrap=True)
    ends = " or ".join(info.stop) or "the tokenizer's own EOS"
    lines = [f"\nA reply ends with: {ends}", *_options(handle.plugin), info.notes]
    console.print(Text(printable("\n".join(lines).rstrip())), soft_wrap=True)


def _options(template: Any) -> Iterator[str]:
    """Lines on the options that checkpoints of this format differ in, and what is set."""
    for name, option in type(template.options).model_fields.items():
        value = getattr(template.options, name)
        if value is not None and value != option.default:
            yield f"Option {name}: {json.dumps(value, ensure_ascii=False)}"
        elif name in getattr(template, "own_options", ()):
            yield f"Option {name}: {option.description}"
