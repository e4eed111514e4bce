"""A run with the installed formats, a small template and a tokenizer of its own: no recipe, no
model."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunewright import registry
from tunewright.types import DataRequest, LoadedModel
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


class StubRun:
    """What the dataset asks of a run."""

    def __init__(self, folder: Path, template: str = TEMPLATE, **options: Any) -> None:
        file = folder / "stub.jinja"
        file.write_text(template, encoding="utf-8")
        kind = from_file(file)
        self.recipe = SimpleNamespace(accelerators=[])
        self.plugins = {
            "template": kind(kind.Options(), "stub"),
            "dataset": Chat(Chat.Options.model_validate(options), "chat"),
        }

    def check_stop(self) -> None:
        """Nobody asks it to stop."""

    def plugin(self, kind: str) -> Any:
        return self.plugins[kind]

    def call(self, kind: str, hook: str, request: Any) -> Any:
        assert (kind, hook) == ("template", "format_template")
        return self.plugins[kind].format_template(request)

    def named(self, kind: str, name: str, **written: Any) -> registry.PluginCaller:
        entry = registry.find(kind, name)
        plugin = registry.load(entry)
        return registry.PluginCaller(
            entry, plugin(plugin.Options.model_validate(written), entry.name)
        )

    def installed(self, kind: str) -> list[str]:
        return sorted({entry.name for entry in registry.entries(kind)})


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


class CountingRun(StubRun):
    """Counts how often the template is called."""

    calls = 0

    def call(self, kind: str, hook: str, request: Any) -> Any:
        self.calls += 1
        return super().call(kind, hook, request)


def write(path: Path, *texts: str) -> str:
    records = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
        for text in texts
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path.name


def made(run: CountingRun, asked: Any) -> int:
    """Rows that were rendered for this."""
    before = run.calls
    build(run, asked)
    return run.calls - before
