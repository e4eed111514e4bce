"""Property test: for any record, reading, converting, rendering, masking and tokenising raise only
TunewrightErrors, each one line with its place."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import strategies
from data.converting import FORMATS
from data.running import chat_run, request, tokenizer
from tunewright import RowError
from tunewright.types import RowKind
from tunewright_dataset_chat import columns
from tunewright_dataset_chat.chunk_processor import ChunkProcessor
from tunewright_dataset_chat.convert import Conversion
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES
from tunewright_dataset_chat.media import Folders
from tunewright_dataset_chat.readers import Read, json_file, json_lines
from tunewright_dataset_chat.truncate import Policy
from tunewright_templates import Auto

TEMPLATE = """\
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == "assistant" %}{% generation -%}
{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}{% endfor -%}
<|im_end|>{% endgeneration %}
{%- else %}{{ message.content }}<|im_end|>{% endif %}
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

KINDS: dict[str, RowKind] = {name: kind.rows[0] for name, kind in FORMATS.items()}
LONGEST = 2000  # characters of an error
QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    folder = tmp_path_factory.mktemp("any")
    made: dict[tuple[str, str], Any] = {}
    for kind in sorted(set(KINDS.values())):
        for template in ("own", "auto"):
            run = chat_run(folder, template=TEMPLATE)
            own: Any = type(run.plugins["template"])
            plugin = Auto if template == "auto" else own
            run.plugins["template"] = plugin(plugin.Options(role_order="any"), template)
            policy: Policy = "end" if kind in ("retrieval", "labelled") else "turns"
            step = ChunkProcessor.of(run, request(folder, rows=kind), policy)
            made[kind, template] = step
    return made


def checked(step: ChunkProcessor, name: str, items: list[Read], folder: Path, padded: bool) -> None:
    conversion = Conversion(name, {}, KINDS[name], {}, {}, Folders(folder), padded)
    made = step(conversion, columns.schema(KINDS[name]), items)
    for error in made.errors:
        said = str(error)
        assert error.place.startswith("a.json"), error
        assert len(said.splitlines()) == 1, said
        assert len(said) < LONGEST, said
        said.encode()


@pytest.mark.parametrize("name", FORMATS)
def test_rows(steps: dict[tuple[str, str], Any], tmp_path: Path, name: str) -> None:
    @QUICK
    @given(st.lists(strategies.FORMATS[name], min_size=1, max_size=3), st.booleans(), st.booleans())
    def tried(records: list[Any], padded: bool, listed: bool) -> None:
        if listed:
            stream = io.BufferedReader(io.BytesIO(json.dumps(records).encode()))
            read = json_file(stream, "a.json", MAX_RECORD_BYTES)
        else:
            text = "".join(json.dumps(record) + "\n" for record in records)
            read = json_lines(
                io.BufferedReader(io.BytesIO(text.encode())), "a.jsonl", MAX_RECORD_BYTES
            )
        checked(steps[KINDS[name], "own"], name, list(read), tmp_path, padded)

    tried()


@pytest.mark.parametrize("name", ["openai", "preference"])
def test_rows_with_a_foreign_template(
    steps: dict[tuple[str, str], Any], tmp_path: Path, name: str
) -> None:
    loaded = tokenizer()
    before, loaded.chat_template = loaded.chat_template, TEMPLATE

    @settings(QUICK, max_examples=30)
    @given(strategies.FORMATS[name])
    def tried(record: Any) -> None:
        text = json.dumps(record).encode()
        items = list(json_lines(io.BufferedReader(io.BytesIO(text)), "a.jsonl", MAX_RECORD_BYTES))
        checked(steps[KINDS[name], "auto"], name, items, tmp_path, False)

    try:
        tried()
    finally:
        loaded.chat_template = before


@given(st.binary(max_size=60) | st.text('{}[]",: \\u\nd8a1', max_size=60).map(str.encode))
def test_bytes_that_are_called_json(found: bytes) -> None:
    for reader in (json_lines, json_file):
        with contextlib.suppress(RowError):  # any other fails the test
            stream = io.BufferedReader(io.BytesIO(found))
            for item in reader(stream, "a.json", MAX_RECORD_BYTES):
                assert isinstance(item, tuple | RowError)
