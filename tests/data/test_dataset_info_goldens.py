"""LLaMA-Factory's real dataset_info.json, and records as peers convert them."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.running import chat_run
from data.running import request as asked
from shared import SHARED
from tunewright import RecipeError, RowError
from tunewright.types import Preference, Row, Unpaired
from tunewright_dataset_chat import dataset_info
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.source import open_sources, opened
from tunewright_dataset_chat.unread import Unread

INFO = SHARED / "data" / "dataset_info.json"
GOLDENS = SHARED / "goldens" / "data_conversion.json"


def names() -> list[str]:
    return list(json.loads(INFO.read_text("utf-8"))) if INFO.is_file() else []


def rows_of(source: Any, folder: Path, needed: Any) -> tuple[list[Row], list[RowError]]:
    run: Any = chat_run(folder)
    records, conversion = opened(run, source, asked(folder, rows=needed))
    assert conversion
    found = conversion(run, conversion.handle(run), records, Unread())
    rows = [row for row in found if not isinstance(row, RowError)]
    return rows, [error for error in found if isinstance(error, RowError)]


def converted(folder: Path, entry: Entry) -> tuple[Any, list[Any], list[RowError]]:
    (source,) = open_sources([entry], "data", folder)
    assert source.entry.format
    needed: Any = {"preference": "preference", "unpaired": "unpaired", "text": "text"}
    return source, *rows_of(source, folder, needed.get(source.entry.format.name, "messages"))


@pytest.mark.parametrize(
    "name", names() or [pytest.param("", marks=pytest.mark.skip(reason=f"needs {INFO}"))]
)
def test_every_data_set_of_the_real_file(tmp_path: Path, name: str) -> None:
    entry, _ = dataset_info.resolve(Entry(dataset_info=str(INFO), name=name), tmp_path, "data.0")
    if entry.hub:
        return
    assert entry.path
    file = Path(entry.path)
    if not file.is_file():
        pytest.skip(f"needs {file}")
    text = file.read_text("utf-8")
    count = (
        len(json.loads(text))
        if file.suffix == ".json"
        else sum(bool(line.strip()) for line in text.split("\n"))
    )
    source, found, errors = converted(tmp_path, Entry(dataset_info=str(INFO), name=name))
    assert (source.records, len(found)) == (count, count)
    assert errors == []


def ranked_cases() -> dict[str, Any]:
    if not GOLDENS.is_file():
        return {}
    every = json.loads(GOLDENS.read_text("utf-8"))["cases"]
    return {
        case["id"]: case
        for case in every
        if case["dataset_info"].get("ranking") or "kto" in case["id"]
    }


CASES = ranked_cases()


@pytest.mark.parametrize(
    "name", CASES or [pytest.param("", marks=pytest.mark.skip(reason=f"needs {GOLDENS}"))]
)
def test_answers_as_peers_convert_them_or_a_named_row(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    (tmp_path / "x.json").write_text(json.dumps([case["record"]]))
    (tmp_path / dataset_info.FILE).write_text(json.dumps({"it": case["dataset_info"]}))
    _, found, errors = converted(tmp_path, Entry(dataset_info=".", name="it"))
    stages = case["kept_by_stage"]
    mended = name == "sharegpt_ranking_bad_role"  # they train on an answer that the user gave
    if mended or not (stages["rm_dpo_kept"] or stages["kto_kept"]):
        assert (found, [error.place for error in errors]) == ([], [f"{tmp_path}/x.json:1"])
        return
    (row,) = found
    theirs = case["output"]
    expected = [("system", theirs["_system"])] * bool(theirs["_system"])
    expected += [(message["role"], message["content"]) for message in theirs["_prompt"]]
    assert [(message.role, message.content) for message in row.prompt] == expected
    answers = [message["content"] for message in theirs["_response"]]
    if isinstance(row, Preference):
        assert [row.chosen[0].content, row.rejected[0].content] == answers
    else:
        assert isinstance(row, Unpaired)
        assert answers[0 if row.label else 1] == row.completion[0].content


@pytest.mark.parametrize(
    ("file", "needed", "count"),
    [
        ("v1_dpo_demo.jsonl", "preference", 10),
        ("dpo_en_demo.json", "preference", 300),
        ("kto_en_demo.json", "unpaired", 300),
    ],
)
def test_demo_data_is_recognised(tmp_path: Path, file: str, needed: str, count: int) -> None:
    if not (SHARED / "data" / file).is_file():
        pytest.skip(f"needs {SHARED / 'data' / file}")
    (source,) = open_sources([Entry(path=str(SHARED / "data" / file))], "data", tmp_path)
    rows, errors = rows_of(source, tmp_path, needed)
    assert (source.format, len(rows), errors) == (needed, count, [])
    with pytest.raises(
        RecipeError,
        match=f"format '{needed}' gives {needed}( or ranked)?, the stage needs messages",
    ):
        rows_of(source, tmp_path, "messages")
