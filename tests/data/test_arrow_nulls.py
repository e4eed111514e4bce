"""Nulls that Arrow adds to the objects of a column are no part of calls and tools."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data.running import build, chat_run, request, tokenizer
from tunewright_formats.arrow_nulls import schema_without_nulls, without_nulls

TEMPLATE = """\
{%- for tool in tools or [] %}{{ tool | tojson }}{% endfor %}
{%- for message in messages %}
{%- if message.role == "assistant" %}{% generation %}{{ message.content }}
{%- for call in message.tool_calls or [] %}{{ call | tojson }}{% endfor %}<|im_end|>
{%- endgeneration %}
{%- else %}{{ message.content }}<|im_end|>{% endif %}
{%- endfor %}"""


def row(name: str, properties: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    call = {"function": {"name": name, "arguments": arguments}}
    return {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ],
        "tools": [{"type": "function", "function": {"name": name, "parameters": parameters}}],
    }


ROWS = [
    row("tide", {"port": {"type": "string", "enum": ["Bergen", "Oslo"]}}, {"port": "Bergen"}),
    row(
        "add", {"a": {"type": "integer", "default": 3}, "b": {"type": "integer"}}, {"a": 2, "b": 3}
    ),
    row(
        "go", {"to": {"type": "object", "properties": {"x": {"type": "number"}}}}, {"to": {"x": 1}}
    ),
]


def texts(folder: Path, name: str) -> list[str]:
    run = chat_run(folder, template=TEMPLATE, cache=str(folder / "cache"))
    data = build(run, request(folder, name, max_length=2000)).train
    return [tokenizer().decode(ids) for ids in data["input_ids"]]


def test_rows_of_parquet_are_those_of_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    table = pa.Table.from_pylist(ROWS)
    parquet.write_table(table, tmp_path / "a.parquet")
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as w,
    ):
        w.write_table(table)
    assert "null" in json.dumps(table.to_pylist())  # or the test would show nothing
    expected = texts(tmp_path, "a.jsonl")
    assert '"arguments": {"port": "Bergen"}' in expected[0]

    def parsed(found: list[str]) -> list[Any]:  # Arrow has the keys in an order of its own
        return [sorted(one) for one in found]

    for name in ("a.parquet", "a.arrow"):
        found = texts(tmp_path, name)
        assert not any("null" in one for one in found)
        assert parsed(found) == parsed(expected)


def test_json_keeps_every_null_as_it_is_written(tmp_path: Path) -> None:
    written = row("f", {"a": {"type": "null", "x": None}}, {"a": None, "b": [None, {"c": None}]})
    (tmp_path / "a.jsonl").write_text(json.dumps(written))
    (text,) = texts(tmp_path, "a.jsonl")
    assert '{"a": null, "b": [null, {"c": null}]}' in text
    assert '"x": null' in text


def test_texts_of_json_in_a_table_keep_their_nulls(tmp_path: Path) -> None:
    one = row("f", {"a": {"type": "null"}}, {"a": None})
    function = one["messages"][1]["tool_calls"][0]["function"]
    function["arguments"] = json.dumps(function["arguments"])
    one["tools"] = json.dumps(one["tools"])
    parquet.write_table(pa.Table.from_pylist([one]), tmp_path / "a.parquet")
    (text,) = texts(tmp_path, "a.parquet")
    assert '"arguments": {"a": null}' in text


def test_what_json_does_not_have_is_a_row_error(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row("f", {"a": {"type": "string"}}, {"a": b"x"})])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(
        Exception, match=r"a\.parquet:1: tools: found bytes, which JSON does not have"
    ):
        texts(tmp_path, "a.parquet")


def test_items_of_lists_stay() -> None:
    value = {"a": [None, {"b": None, "c": 0, "d": {}}], "e": None, "f": False}
    assert without_nulls(value) == {"a": [None, {"c": 0, "d": {}}], "f": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        # added, as to every property when one of them has a default, a const or an enum
        ({"type": "string", "default": None}, {"type": "string"}),
        ({"type": "string", "const": None, "enum": None}, {"type": "string"}),
        ({"enum": ["a"], "const": None}, {"enum": ["a"]}),
        # written
        (
            {"type": ["string", "null"], "default": None},
            {"type": ["string", "null"], "default": None},
        ),
        (
            {
                "anyOf": [{"type": "string", "x": None}, {"type": "null", "x": None}],
                "default": None,
            },
            {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        ),
        ({"enum": [None, "a"], "default": None}, {"enum": [None, "a"], "default": None}),
        ({"nullable": True, "default": None}, {"nullable": True, "default": None}),
        ({"description": "d", "const": None}, {"description": "d", "const": None}),
        # names of properties are no keywords
        (
            {"properties": {"default": None, "const": {"type": "null"}, "items": None}},
            {"properties": {"const": {"type": "null"}}},
        ),
        (
            {"items": {"type": "string", "default": None}, "additionalProperties": False},
            {"items": {"type": "string"}, "additionalProperties": False},
        ),
        (
            {"default": {"a": None, "b": 1}, "type": "object"},
            {"default": {"b": 1}, "type": "object"},
        ),
    ],
)
def test_nulls_of_a_schema(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert schema_without_nulls(schema) == expected


def test_a_required_property_has_no_default() -> None:
    one = {"type": ["string", "null"], "default": None}
    schema = {"properties": {"a": one, "b": one}, "required": ["a"]}
    found = schema_without_nulls(schema)
    assert found["properties"] == {"a": {"type": ["string", "null"]}, "b": one}
