"""Format labelled, and its texts as token ids."""

from pathlib import Path
from typing import Any

import pytest

from data.converting import convert, matching, problem
from data.running import build, chat_run, request, tokenizer
from tunewright.types import Labelled, Origin


@pytest.mark.parametrize(
    ("label", "names", "value"),
    [
        ("good", ["good"], None),
        (2, ["2"], 2.0),
        (2.5, ["2.5"], 2.5),
        ("3.5", ["3.5"], 3.5),
        (True, ["true"], None),
        (["a", "b"], ["a", "b"], None),
        ([], [], None),
        ("nan", ["nan"], None),
    ],
)
def test_labels(label: Any, names: list[str], value: float | None) -> None:
    expected = Labelled("t", names, value, origin=Origin("a.jsonl", 7))
    assert convert("labelled", {"text": "t", "label": label}) == expected


def test_usual_names() -> None:
    record = {"sentence": "t", "labels": ["a"]}
    assert matching(record) == ["labelled"]
    assert isinstance(convert("labelled", record), Labelled)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"label": "a"}, "text: is missing, expected text in text or sentence"),
        ({"text": "t"}, "label: is missing"),
        ({"text": "t", "label": {}}, "label: found an empty object"),
        ({"text": "t", "label": ["a", " a"]}, "label: has a class twice"),
        ({"text": " ", "label": "a"}, "text: is empty"),
        ({"text": "t", "label": float("inf")}, "label: found Infinity"),
    ],
)
def test_problems_name_the_column(record: dict[str, Any], said: str) -> None:
    assert problem("labelled", record).startswith(said)


def test_rows_have_ids_names_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "hello there", "label": "x"}\n{"text": "a nest", "label": 1.5}\n'
    )
    data = build(chat_run(tmp_path), request(tmp_path, "a.jsonl", rows="labelled"))
    ids = [tokenizer()(text)["input_ids"] for text in ("hello there", "a nest")]
    assert data.train["input_ids"][:] == ids
    assert data.train["names"][:] == [["x"], ["1.5"]]
    assert data.train["value"][:] == [None, 1.5]
