"""A run with the installed formats, a small template and a tokenizer of its own: no model."""

import functools
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunewright.types import DataRequest, LoadedModel
from tunewright_conformance.doubles import FakeRun
from tunewright_dataset_chat import Chat
from tunewright_hf.templates.jinja_template import from_file

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.role == "assistant" -%}
{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}
{% else -%}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""


@functools.cache
def tokenizer() -> Any:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(["user assistant system the cat sat on the mat"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def chat_run(folder: Path, template: str = TEMPLATE, **options: Any) -> FakeRun:
    """A run with a template and the dataset chat. options: of the dataset."""
    file = folder / "stub.jinja"
    file.write_text(template, encoding="utf-8")
    kind = from_file(file)
    dataset = Chat(Chat.Options.model_validate(options), "chat")
    return FakeRun(folder, {"template": kind(kind.Options(), "stub"), "dataset": dataset})


def request(folder: Path, *entries: dict[str, Any] | str, **changes: Any) -> DataRequest:
    """Entries: sources, or their paths alone."""
    written = [{"path": entry} if isinstance(entry, str) else entry for entry in entries]
    fields: dict[str, Any] = {
        "entries": [Chat.Entry.model_validate(entry) for entry in written],
        "eval_entries": {},
        "rows": "messages",
        "loaded": LoadedModel(model=None, tokenizer=tokenizer()),
        "max_length": 200,
        "root": folder,
    }
    return DataRequest(**fields | changes)


def build(run: Any, asked: DataRequest) -> Any:
    return run.plugin("dataset").build_dataset(run, asked)


def write(path: Path, *texts: str) -> str:
    records = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
        for text in texts
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path.name


def rendered(run: FakeRun) -> int:
    """Rows that the template has rendered."""
    return run.called["format_template"]


def made(run: FakeRun, asked: Any) -> int:
    """Rows that were rendered for this."""
    before = rendered(run)
    build(run, asked)
    return rendered(run) - before
