"""Several rejected answers: as pairs, or together, and as token ids."""

from pathlib import Path
from typing import Any

import pytest

from data.converting import convert_all, matching, problem
from data.running import chat_run, request
from tunewright.types import Message, Origin, Preference, Ranked
from tunewright_dataset_chat.row_processor import RowProcessor

SEVERAL: dict[str, Any] = {"prompt": "q", "chosen": "a", "rejected": ["b", "c"]}


def said(row: Any) -> list[str]:
    assert isinstance(row, Ranked)
    return [answer[-1].content for answer in row.answers]  # type: ignore[misc]


def test_rejected_answers_are_pairs_or_one_row() -> None:
    assert matching(SEVERAL) == ["preference"]
    pairs = convert_all("preference", SEVERAL | {"system": "s", "margin": 2})
    found = [
        ([m.content for m in row.prompt], row.rejected[0].content, row.margin)
        for row in pairs
        if isinstance(row, Preference)
    ]
    assert found == [(["s", "q"], "b", 2), (["s", "q"], "c", 2)]
    (row,) = convert_all("preference", SEVERAL, "ranked")
    assert said(row) == ["a", "b", "c"]
    (row,) = convert_all("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, "ranked")
    assert said(row) == ["a", "b"]


def test_rejected_answers_that_are_lists_of_messages() -> None:
    ask, tell = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    others = [[ask, {**tell, "content": text}] for text in "bc"]
    (row,) = convert_all("preference", {"chosen": [ask, tell], "rejected": others}, "ranked")
    assert said(row) == ["a", "b", "c"]
    assert isinstance(row, Ranked)
    assert row.prompt == [Message("user", "q")]


def test_a_ranking_is_one_row_in_order() -> None:
    record = {"prompt": "q", "answers": ["x", "y", "z", "w"], "scores": [1, 3, 2, 2]}
    (row,) = convert_all("ranking", record, "ranked")
    assert said(row) == ["y", "z", "x"]  # of equal ones the first
    assert len(convert_all("ranking", record)) == 3


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({**SEVERAL, "rejected": ["b", "a"]}, "rejected: is the same as chosen"),
        ({**SEVERAL, "rejected": ["b", ""]}, "rejected[1]: is empty"),
    ],
)
def test_problems_name_the_answer(record: dict[str, Any], expected: str) -> None:
    assert problem("preference", record).startswith(expected)


def test_answers_are_those_of_pairs(tmp_path: Path) -> None:
    tokenizer = request(tmp_path, rows="ranked").loaded.tokenizer
    prompt, answers = [Message("user", "hello there")], ["a wren", "b", "it is big " * 20]
    told = [[Message("assistant", text)] for text in answers]
    origin = Origin("a.jsonl", 1)

    def columns(kind: Any, row: Any, size: int = 999, policy: Any = "drop") -> Any:
        work = RowProcessor.of(chat_run(tmp_path), tokenizer, kind, size, policy)
        (sample,) = work([row]).samples
        return sample.columns

    row = Ranked(prompt, told, origin=origin)
    found = columns("ranked", row)
    for n in (1, 2):
        pair = columns("preference", Preference(prompt, told[0], told[n], origin=origin))
        assert found["prompt_ids"] == pair["prompt_ids"]
        assert found["answer_ids"][0] == pair["chosen_ids"]
        assert found["answer_ids"][n] == pair["rejected_ids"]
    size = len(found["prompt_ids"]) + 5
    cut = columns("ranked", row, size, "end")
    assert cut["answer_ids"] == [ids[:5] for ids in found["answer_ids"]]
