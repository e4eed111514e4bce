"""Records as peers convert them: we agree, or name the row that they drop or mend silently."""

import json
from collections import Counter
from typing import Any

import pytest

from data.converting import FORMATS, convert
from shared import SHARED
from tunewright import RowError
from tunewright.types import Conversation, MediaPart, Origin, RowsRequest
from tunewright_hf.templates.conversation import check_roles

FILE = SHARED / "goldens" / "data_conversion.json"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"needs {FILE}")

COLUMNS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
    "openai": {},
}
TAGS = {
    "observation_tag": {"sharegpt": "observation", "openai": "tool"},
    "function_tag": {"sharegpt": "function_call"},
}
RANKING = ("chosen", "rejected", "kto_tag")  # rows of other sorts

#: our answer is another one, and why
DIFFERENT = {
    "alpaca_empty_instruction": "they train an answer to an empty question; we name the row",
    "alpaca_columns_partial_drops_query": "they forget every column that `columns` does not name",
    "alpaca_columns_only_system": "they forget every column that `columns` does not name",
    "alpaca_missing_input_column": "they need the column input; it is optional",
    "sharegpt_unknown_role": "they drop user and assistant, which can mean only one thing",
    "sharegpt_tags_partial": "they forget every tag that `tags` does not name",
    "sharegpt_system_column_and_message": "they forget the system column; we name the row",
    "sharegpt_null_content": "they train on the word None; we name the row",
    "sharegpt_images": "they go on with two images for one mark; we name the row",
    "sharegpt_video_frames": "frames as a list are not read",
    "openai_trailing_tool": "they forget the dangling result; we name the row",
    "openai_basic": "they add a sentence to the system text",
    "openai_no_system": "they add a sentence to the system text",
    "openai_tool_calls": "they join two results with another model's tags",
    "openai_tool_calls_string_args": "they keep arguments as text in text",
    "openai_default_tags": "they need tags for the format's own names",
}


def cases() -> dict[str, Any]:
    if not FILE.is_file():
        return {}
    found = {case["id"]: case for case in json.loads(FILE.read_text("utf-8"))["cases"]}
    for name in [
        name
        for name, case in found.items()
        if case["dataset_info"].get("ranking") or name == "unknown_formatting"
    ]:
        del found[name]
    return {
        name: case for name, case in found.items() if "kto" not in name and "pretrain" not in name
    }


CASES = cases()


def ours(case: dict[str, Any]) -> Any:
    info = case["dataset_info"]
    name = info.get("formatting", "alpaca")
    columns = {COLUMNS[name].get(key, key): value for key, value in info.get("columns", {}).items()}
    tags = {}
    for key, value in info.get("tags", {}).items():
        own = TAGS.get(key, {name: key.removesuffix("_tag")}).get(name)
        if own:
            tags[own] = value
    return convert(name, case["record"], columns=columns, tags=tags)


def as_theirs(row: Conversation) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for message in row.messages:
        if message.tool_calls:
            found.append(("function", [(call.name, call.arguments) for call in message.tool_calls]))
            continue
        content = message.content
        if not isinstance(content, str):
            content = "".join(
                f"<{p.kind}>" if isinstance(p, MediaPart) else p.text for p in content
            )
        found.append(("observation" if message.role == "tool" else message.role, content))
    return found


def their_call(text: str) -> list[tuple[str, Any]]:
    written = json.loads(text)
    return [
        (call["name"], call["arguments"])
        for call in (written if isinstance(written, list) else [written])
    ]


@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFERENT])
def test_agrees_or_names_the_row(name: str) -> None:
    case = CASES[name]
    row = ours(case)
    if not (case.get("kept_by_stage") or {}).get("sft_kept"):
        if isinstance(row, Conversation):  # that the template will not write
            with pytest.raises(RowError) as raised:
                check_roles(row)
            row = raised.value
        assert isinstance(row, RowError), row
        assert row.place == "a.jsonl:7"
        return
    assert isinstance(row, Conversation), row
    theirs = case["output"]
    expected = [("system", theirs["_system"])] if theirs["_system"] else []
    for message in theirs["_prompt"] + theirs["_response"]:
        role, content = message["role"], message["content"]
        expected.append((role, their_call(content) if role == "function" else content))
    assert as_theirs(row) == expected
    assert bool(row.tools) == (theirs["_tools"] not in ("", "[]"))


@pytest.mark.parametrize("name", list(DIFFERENT) if CASES else [])
def test_differences_are_still_different(name: str) -> None:
    case = CASES[name]
    row = ours(case)
    if "we name the row" in DIFFERENT[name] or name == "sharegpt_video_frames":
        assert isinstance(row, RowError), row
    else:
        assert isinstance(row, Conversation), row


@pytest.mark.parametrize(
    ("file", "name", "count"),
    [
        ("alpaca_en_demo.json", "alpaca", 999),
        ("identity.json", "alpaca", 91),
        ("glaive_toolcall_en_demo.json", "sharegpt", 300),
        ("mllm_demo.json", "openai", 6),
        ("mllm_video_audio_demo.json", "openai", 3),
        ("v1_sft_demo.jsonl", "openai", 500),
        ("reason_tool_use_demo_50.jsonl", "openai", 50),
        ("v1_multimodal_demo.jsonl", "openai", 24),
        ("c4_demo.jsonl", "text", 300),
    ],
)
def test_demo_data_is_read_without_an_error(file: str, name: str, count: int) -> None:
    text = (SHARED / "data" / file).read_text("utf-8")
    records = (
        json.loads(text)
        if file.endswith(".json")
        else [json.loads(x) for x in text.splitlines() if x.strip()]
    )
    assert [known for known, plugin in FORMATS.items() if plugin.matches(records[0])] == [name]
    plugin: Any = FORMATS[name](FORMATS[name].Options(), name)
    rows = "text" if name == "text" else "messages"
    numbered = ((Origin(file, number), record) for number, record in enumerate(records, 1))
    found = Counter(type(row).__name__ for row in plugin.convert_rows(RowsRequest(numbered, rows)))
    assert found == {"Text" if name == "text" else "Conversation": count}
