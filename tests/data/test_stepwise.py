"""Format stepwise, and its steps as token ids."""

from pathlib import Path
from typing import Any

import pytest

from data.converting import convert_all, matching, problem
from data.running import chat_run, request
from tunewright.types import Conversation, Message, Origin, Stepwise
from tunewright_dataset_chat.row_processor import RowProcessor


def test_a_record_is_a_row() -> None:
    record = {"prompt": "1 + 1?", "completions": ["I add.", "3."], "labels": [True, 0]}
    assert matching(record) == ["stepwise"]
    (row,) = convert_all("stepwise", record)
    assert row == Stepwise(
        [Message("user", "1 + 1?")], ["I add.", "3."], [True, False], origin=Origin("a.jsonl", 7)
    )


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"completions": ["a"], "labels": [True]}, "record: found an object with"),
        ({"prompt": "q", "completions": [], "labels": []}, "completions: is empty"),
        ({"prompt": "q", "completions": ["a"], "labels": [1, 0]}, "labels: has 2 labels for 1 st"),
        ({"prompt": "q", "completions": ["a"], "labels": [0.5]}, "labels[0]: found 0.5, expected"),
        ({"prompt": "q", "completions": ["a", ""], "labels": [1, 0]}, "completions[1]: is empty"),
    ],
)
def test_problems_name_the_column(record: dict[str, Any], said: str) -> None:
    assert problem("stepwise", record).startswith(said)


def done_with(tmp_path: Path, size: int, policy: Any, *steps: str) -> Any:
    made = request(tmp_path, rows="stepwise")
    run, tokenizer = chat_run(tmp_path), made.loaded.tokenizer
    work = RowProcessor.of(run, tokenizer, "stepwise", size, policy)
    prompt, labels = [Message("user", "hello there")], [n % 2 == 0 for n in range(len(steps))]
    done = work([Stepwise(prompt, [*steps], labels, origin=Origin("a.jsonl", 1))])
    asked = work._render(Conversation(prompt, origin=Origin("a.jsonl", 1)), True)
    return done, work._tokeniser.encode(asked).input_ids, tokenizer


def test_each_step_is_judged_at_the_line_break_after_it(tmp_path: Path) -> None:
    done, prompt, tokenizer = done_with(tmp_path, 999, "drop", "a wren sings", "it is big")
    ids, labels = list(prompt), [-100] * len(prompt)
    for step, label in (("a wren sings", 1), ("it is big", 0)):
        own = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (step, "\n")]
        ids += own[0] + own[1]
        labels += [-100] * (len(own[0]) + len(own[1]) - 1) + [label]
    (sample,) = done.samples
    assert list(sample.columns["input_ids"]) == ids
    assert list(sample.columns["labels"]) == labels


def test_long_answers_are_cut_or_the_row_is_dropped(tmp_path: Path) -> None:
    steps = ("a wren", "it is big " * 20)
    whole, prompt, _ = done_with(tmp_path, 999, "drop", *steps)
    ids, labels = (list(whole.samples[0].columns[name]) for name in ("input_ids", "labels"))
    size = labels.index(1) + 3
    cut, _, _ = done_with(tmp_path, size, "end", *steps)
    assert list(cut.samples[0].columns["input_ids"]) == ids[:size]
    assert list(cut.samples[0].columns["labels"]) == labels[:size]
    nothing, _, _ = done_with(tmp_path, len(prompt) + 1, "end", *steps)
    dropped, _, _ = done_with(tmp_path, size, "drop", *steps)
    for done in (nothing, dropped):
        assert not done.samples
        assert done.dropped.total() == 1
