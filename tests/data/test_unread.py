"""Columns and message keys that nothing reads are said, with the number of rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.converting import FORMATS
from data.running import build, chat_run, request
from tunewright import RecipeError, RowError
from tunewright.types import Origin, RowsRequest
from tunewright_dataset_chat.unread import Unread

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def unread(name: str, *records: Any, **names: Any) -> str:
    """The line after these records."""
    plugin: Any = FORMATS[name](FORMATS[name].Options(), name)
    found, places = Unread(), [(Origin("a", n), record) for n, record in enumerate(records)]
    asked = RowsRequest(iter(places), plugin.rows[0], **names, unread=found.count)
    rows = list(plugin.convert_rows(asked))
    assert not any(isinstance(row, RowError) for row in rows), rows
    return found.line()


def talk(*said: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(said)} | more


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("alpaca", {"instruction": "q", "output": "a", "context": "c"}, "column context"),
        ("alpaca", {"instruction": "q", "input": "i", "output": "a", "system": "s"}, ""),
        ("alpaca", {"instruction": "q", "output": "a", "reasoning": "r"}, ""),
        (
            "alpaca",
            {"instruction": "q", "output": "a", "reasoning": "r", "thinking": "t"},
            "column thinking",
        ),
        # nothing is lost of these
        ("alpaca", {"instruction": "q", "output": "a", "x": None, "y": "", "z": []}, ""),
        ("alpaca", {"instruction": "q", "output": "a", "x": 0, "y": False}, "columns x, y"),
        ("text", {"text": "t", "url": "u", "meta": {"a": 1}}, "columns url, meta"),
        ("text", "a line", ""),
        ("openai", talk(USER, ANSWER, metadata={"a": 1}), "column metadata"),
        ("openai", talk(USER | {"name": "ann"}, ANSWER), "message key name"),
        ("openai", talk(USER, ANSWER | {"refusal": None, "logprobs": [1]}), "message key logprobs"),
        (
            "openai",
            talk(USER | {"thinking": "t"}, ANSWER | {"thinking": "t"}),
            "message key thinking",
        ),
        (
            "openai",
            talk(USER, ANSWER | {"reasoning_content": "a", "reasoning": "b"}),
            "message key reasoning",
        ),
        ("openai", talk(USER, ANSWER | {"reasoning_content": "a", "reasoning": "a"}), ""),
        ("openai", talk(USER, ANSWER, functions=["a"]), "column functions"),
        (
            "openai",
            talk(USER, ANSWER | {"tool_calls": [{"name": "f", "arguments": {"a": 1}, "cost": 2}]}),
            "message key tool_calls.cost",
        ),
        (
            "openai",
            talk({"role": "user", "content": [{"type": "text", "text": "q", "mark": 1}]}, ANSWER),
            "message key content.mark",
        ),
        (
            "openai",
            talk(USER, ANSWER, tools=[{"type": "function", "function": {"name": "f"}, "x": 1}]),
            "message key tools.x",
        ),
        (
            "preference",
            {"prompt": "p", "chosen": "a", "rejected": "b", "instruction": "i", "score": 2},
            "columns score, instruction",
        ),
        (
            "preference",
            {"prompt": "p", "chosen": "a", "rejected": "b", "input": "i", "margin": 1},
            "column input",
        ),
        (
            "preference",
            {"prompt": "p", "chosen": [ANSWER | {"loss_scale": 2}], "rejected": "b"},
            "message key loss_scale",
        ),
        ("ranking", {"prompt": "p", "answers": ["a", "b"], "best": 1}, "column best"),
        (
            "unpaired",
            {"prompt": "p", "completion": "a", "output": "b", "label": True, "kto_tag": True},
            "columns kto_tag, output",
        ),
        (
            "prompt_completion",
            {"prompt": "p", "completion": "a", "messages": [1]},
            "column messages",
        ),
        # what a prompt does not need is for the rewards
        ("prompts", {"prompt": "p", "answer": 3, "level": "hard", "instruction": "i"}, ""),
        ("prompts", {"messages": [USER | {"id": 7}], "answer": 3}, "message key id"),
    ],
)
def test_what_is_not_read(name: str, record: Any, expected: str) -> None:
    assert unread(name, record) == (f"not read: {expected} (1 row)" if expected else "")


def test_turns_of_sharegpt_have_other_keys() -> None:
    turns = [
        {"from": "human", "value": "q", "reasoning": "r"},
        {"from": "gpt", "value": "a", "reasoning": "r", "tool_call": "c", "loss": True},
    ]
    expected = "not read: message keys reasoning, tool_call (1 row)"
    assert unread("sharegpt", {"conversations": turns}) == expected


def test_a_column_that_the_recipe_names_is_read() -> None:
    record = {"question": "q", "context": "c", "response": "a"}
    names = {"instruction": "question", "output": "response"}
    assert unread("alpaca", record, columns=names) == "not read: column context (1 row)"
    assert unread("alpaca", record, columns=names | {"input": "context"}) == ""


def test_rows_are_counted_once_and_names_by_how_often_they_come() -> None:
    one = {"instruction": "q", "output": "a"}
    records = [one | {"a": 1}, one | {"a": 1, "b": 1}, one, one | {"b": 1}, one | {"b": 1}]
    assert unread("alpaca", *records) == "not read: columns b, a (4 rows)"


def test_a_line_stays_short_and_printable() -> None:
    names = [f"column{number}" for number in range(20_000)]
    record = {
        "instruction": "q",
        "output": "a",
        "\x1b[31m" + "x" * 5000: 1,
        **dict.fromkeys(names, 1),
    }
    line = unread("alpaca", record)
    assert len(line) < 400
    assert line.isprintable()
    assert line.endswith("and 92 more (1 row)")


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.just("")))
def test_every_name_that_holds_something_is_reported(more: dict[str, Any]) -> None:
    found = Unread()
    plugin: Any = FORMATS["text"](FORMATS["text"].Options(), "text")
    record = more | {"text": "t"}
    asked = RowsRequest(iter([(Origin("a", 1), record)]), "text", unread=found.count)
    list(plugin.convert_rows(asked))
    assert set(found.columns) == {
        name for name, value in more.items() if value not in (None, "") and name != "text"
    }


# ---- in a run ------------------------------------------------------------------------------------


def alpaca(file: Path, count: int = 3, **more: Any) -> str:
    records = [{"instruction": "the cat", "output": f"sat {n}", **more} for n in range(count)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file.name


LINE = "a.jsonl: not read: column context ({} rows)"


def test_it_is_reported_when_rows_are_prepared_and_when_they_come_from_the_cache(
    tmp_path: Path,
) -> None:
    run = chat_run(tmp_path, cache=str(tmp_path / "cache"))
    asked = request(tmp_path, alpaca(tmp_path / "a.jsonl", context="lost"))
    first, again = build(run, asked), build(run, asked)
    assert LINE.format(3) in first.notes
    assert LINE.format(3) in again.notes
    assert any(note.endswith("from the cache") for note in again.notes)


def test_preview_and_stats_say_it(tmp_path: Path) -> None:
    run: Any = chat_run(tmp_path)
    asked = request(tmp_path, alpaca(tmp_path / "a.jsonl", context="lost"))
    chat = run.plugin("dataset")
    assert LINE.format(3) in chat.preview(run, asked, 1).notes
    assert LINE.format(3) in chat.stats(run, asked).notes


def test_each_source_has_its_line(tmp_path: Path) -> None:
    run = chat_run(tmp_path, cache=str(tmp_path / "cache"))
    one = alpaca(tmp_path / "a.jsonl", context="lost")
    other, clean = alpaca(tmp_path / "b.jsonl", 2, id=7), alpaca(tmp_path / "c.jsonl")
    notes = build(run, request(tmp_path, one, other, clean)).notes
    assert [note for note in notes if "not read" in note] == [
        LINE.format(3),
        "b.jsonl: not read: column id (2 rows)",
    ]


def test_streaming_says_it_before_and_after(tmp_path: Path) -> None:
    run = chat_run(tmp_path, streaming=True)
    asked = request(tmp_path, alpaca(tmp_path / "a.jsonl", 30, context="lost"))
    data = build(run, asked)
    assert LINE.format(20) + " in the first 20 records" in data.notes
    (window,) = list(data.train.windows(0, 0, {}))
    assert json.loads(json.dumps(window.seen)) == window.seen
    assert "not read: column context (30 rows)" in data.train.summary(window.seen)


def test_error_refuses_such_a_row_or_leaves_it_out(tmp_path: Path) -> None:
    alpaca(tmp_path / "a.jsonl", 2)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"instruction": "a", "output": "b", "context": "c"}\n')
    asked = request(tmp_path, "a.jsonl")
    run = chat_run(tmp_path, cache=str(tmp_path / "cache"), on_unread="error")
    with pytest.raises(RowError, match=r"a\.jsonl:3: has what is not read: column context \(name"):
        build(run, asked)
    run = chat_run(tmp_path, cache=str(tmp_path / "cache"), on_unread="error", on_bad_row="skip")
    data = build(run, asked)
    assert (len(data.train), data.dropped) == (2, {"cannot be used": 1})
    warned = build(chat_run(tmp_path, cache=str(tmp_path / "cache")), asked)
    assert len(warned.train) == 3


def test_other_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on_unread"):
        chat_run(tmp_path, on_unread="ignore")


def test_reward_columns_may_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "the cat", "solution": "7", "level": 2}\n')
    run = chat_run(tmp_path, cache=str(tmp_path / "cache"))
    source = {"path": "a.jsonl", "columns": {"answer": "solution"}}
    data = build(run, request(tmp_path, source, rows="prompts")).train
    assert (data["answer"], data["level"]) == (["7"], [2])
    assert "solution" not in data.column_names
    source["columns"] = {"answer": "solutoin"}
    with pytest.raises(RowError, match="solutoin: is missing; the record has prompt, solution"):
        build(run, request(tmp_path, source, rows="prompts"))


def test_turns_under_another_name_have_a_remedy(tmp_path: Path) -> None:
    record = {"conversations": [USER, ANSWER]}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    with pytest.raises(RecipeError, match=r"format: openai, columns: \{messages: conversations\}"):
        build(chat_run(tmp_path), request(tmp_path, "a.jsonl"))
