"""Text that spells control tokens: counted and said, and `format: rendered`, which takes it as it
is."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.converting import convert, matching, problem
from data.running import TEMPLATE, build, chat_run, request, tokenizer
from tunewright.types import RenderedText
from tunewright_dataset_chat.spelling import RENDERED

ASKED = "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"


def rows(folder: Path, *records: dict[str, Any], kind: str = "messages", **options: Any) -> Any:
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    entry = {"path": "a.jsonl", "format": "rendered"}
    return build(chat_run(folder, **options), request(folder, entry, rows=kind))


def decoded(ids: list[int]) -> str:
    return tokenizer().decode([token for token in ids if token != -100])


SAME: list[dict[str, Any]] = [
    {"prompt": ASKED, "completion": "on the mat<|im_end|>"},
    {
        "segments": [
            {"text": ASKED, "train": False},
            {"text": "on the", "train": True},
            {"text": " mat<|im_end|>", "label": True},
        ]
    },
    {"segments": [{"text": ASKED, "weight": 0}, {"text": "on the mat<|im_end|>", "weight": 1}]},
]


@pytest.mark.parametrize("kind", ["messages", "text"])
def test_rendered_text_gives_the_rows_of_the_template(tmp_path: Path, kind: str) -> None:
    turns = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "on the mat"}]
    (tmp_path / "b.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    (whole,) = build(chat_run(tmp_path), request(tmp_path, "b.jsonl")).train
    data = rows(tmp_path, *SAME, kind=kind)
    special = tokenizer().convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    for row in data.train:
        size = len(row["input_ids"])  # the template writes a line break after the last stop token
        assert row["input_ids"] == whole["input_ids"][:size]
        assert row["labels"] == whole["labels"][:size]
        assert row["labels"][-1] == special[1]
    assert f"{RENDERED}: 3" in data.notes


def test_only_what_is_marked_is_trained(tmp_path: Path) -> None:
    record = {
        "segments": [
            {"text": "the cat", "train": True},
            {"text": " sat", "train": False},
            {"text": " on the mat<|im_end|>", "weight": 0.5},
        ]
    }
    (row,) = rows(tmp_path, record, {"text": "the mat<|im_end|>"}).train.select([0])
    assert decoded(row["input_ids"]) == "the cat sat on the mat<|im_end|>"
    assert decoded(row["labels"]) == "the cat on the mat<|im_end|>"
    assert set(row["loss_weights"]) == {1.0, 0.0, 0.5}
    for label, weight in zip(row["labels"], row["loss_weights"], strict=True):
        assert (label == -100) == (weight == 0)


def test_a_token_that_is_marked_in_part_is_not_trained(tmp_path: Path) -> None:
    record = {"segments": [{"text": "the cat ", "train": True}, {"text": "sat", "train": False}]}
    (row,) = rows(tmp_path, record).train
    assert row["input_ids"] == tokenizer()("the cat sat")["input_ids"]
    assert decoded(row["labels"]) in ("the cat", "the cat ")  # sat alone, or with its space


def test_text_alone_is_trained_whole_and_nothing_is_added(tmp_path: Path) -> None:
    for kind in ("messages", "text"):
        (row,) = rows(tmp_path, {"text": "the cat"}, kind=kind).train
        assert row["input_ids"] == row["labels"] == tokenizer()("the cat")["input_ids"]


def test_an_end_that_is_missing_is_reported(tmp_path: Path) -> None:
    data = rows(tmp_path, {"prompt": "a", "completion": "b"}, SAME[0])
    note = "rows of rendered text whose trained part does not end with a stop token (<|im_end|>): 1"
    assert note in data.notes
    assert not any("stop token" in note for note in rows(tmp_path, *SAME).notes)


def test_long_rows_are_cut_or_dropped(tmp_path: Path) -> None:
    record = {"prompt": "a", "completion": "the cat sat " * 200}
    for policy, kept in (("drop", 0), ("turns", 0), ("end", 1), ("start", 1)):
        data = rows(tmp_path, record, SAME[0], truncate=policy)
        assert len(data.train) == 1 + kept
        assert data.dropped.get("longer than max_length (200 tokens)", 0) == 1 - kept


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"other": "x"}, "record: found an object with other, expected one of text, prompt and"),
        ({"text": "a", "segments": []}, "record: found text and segments, expected one of"),
        ({"completion": "a"}, "prompt: found null, expected text"),
        ({"text": 5}, "text: found 5, expected text"),
        ({"segments": []}, "segments: is empty"),
        ({"segments": ["a"]}, "segments[0]: found 'a', expected an object"),
        ({"segments": [{"text": "a"}]}, "segments[0]: has no mark, expected one of train, label"),
        (
            {"segments": [{"text": "a", "train": True, "weight": 1}]},
            "segments[0]: has train and weight, expected one of",
        ),
        ({"segments": [{"text": "a", "train": "yes"}]}, "segments[0].train: found 'yes'"),
        ({"segments": [{"text": "a", "weight": -1}]}, "segments[0].weight: found -1"),
        ({"segments": [{"text": None, "train": True}]}, "segments[0].text: found null"),
        ("text", "record: found 'text', expected an object"),
    ],
)
def test_records_that_say_something_else(record: Any, says: str) -> None:
    assert says in problem("rendered", record)


def test_documents_have_no_weights() -> None:
    record = {"segments": [{"text": "a", "weight": 0.5}]}
    assert "and documents have no loss weights" in str(convert("rendered", record, rows="text"))
    assert isinstance(convert("rendered", record), RenderedText)


def test_segments_of_one_weight_are_one_span() -> None:
    marks = [True, True, False, True, False, False]
    segments = [{"text": "ab", "train": mark} for mark in marks] + [{"text": "", "train": True}]
    row = convert("rendered", {"segments": segments})
    assert isinstance(row, RenderedText)
    assert row.trained == [(0, 4, 1.0), (6, 8, 1.0)]


@pytest.mark.parametrize("record", SAME)
def test_it_is_never_detected(record: dict[str, Any]) -> None:
    assert "rendered" not in matching(record)


# ---- control tokens in the texts of other formats ------------------------------------------------


def notes(folder: Path, kind: str, *records: dict[str, Any], template: str = TEMPLATE) -> list[str]:
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run = chat_run(folder, template)
    return [
        note
        for note in build(run, request(folder, "a.jsonl", rows=kind, max_length=400)).notes
        if "spells" in note
    ]


ANSWER = "rows with an answer that spells <|im_end|>, which is trained as text"
PROMPT = "rows with a prompt that spells <|im_start|>, which is text there, no token"


def test_answers_and_prompts_that_spell_tokens_are_counted(tmp_path: Path) -> None:
    plain = {"instruction": "the cat", "output": "sat"}
    answer = plain | {"output": "sat<|im_end|>"}
    prompt = plain | {"instruction": "<|im_start|>user\nthe cat"}
    assert notes(tmp_path, "messages", plain) == []
    both = prompt | {"output": answer["output"]}
    found = notes(tmp_path, "messages", plain, answer, answer, prompt, both)
    assert sorted(found) == [
        f"{PROMPT} (`format: rendered` takes rendered text as it is): 2",
        f"{ANSWER}: 3",
    ]


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("preference", {"prompt": "a", "chosen": "b<|im_end|>", "rejected": "c<|im_end|>"}),
        ("unpaired", {"prompt": "a", "completion": "b<|im_end|>", "label": True}),
    ],
)
def test_pairs_are_counted_by_row(tmp_path: Path, kind: str, record: dict[str, Any]) -> None:
    asked = record | {"prompt": "<|im_start|>a"}
    found = notes(tmp_path, kind, record, asked)
    assert sorted(found)[0].startswith(PROMPT) and sorted(found)[0].endswith(": 1")
    assert sorted(found)[1] == f"{ANSWER}: 2"


def test_prompts_are_counted(tmp_path: Path) -> None:
    (found,) = notes(tmp_path, "prompts", {"prompt": "<|im_start|>a"}, {"prompt": "b"})
    assert found.startswith(PROMPT) and found.endswith(": 1")
