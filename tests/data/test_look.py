"""`data preview` and `data stats`: every format can be looked at, and is counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.running import chat_run, request, tokenizer
from tunewright.types import Span
from tunewright_data.draw import draw
from tunewright_data.stats import percentile, tables

ASKED = [{"role": "user", "content": "ask"}]
ANSWER = [{"role": "assistant", "content": "yes"}]
RECORDS: dict[str, tuple[str, Any]] = {
    "alpaca": ("messages", {"instruction": "ask", "output": "yes"}),
    "sharegpt": (
        "messages",
        {"conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "yes"}]},
    ),
    "openai": ("messages", {"messages": ASKED + ANSWER}),
    "prompt_completion": ("messages", {"prompt": "ask", "completion": "yes"}),
    "text": ("text", {"text": "ask yes"}),
    "preference": ("preference", {"prompt": "ask", "chosen": "yes", "rejected": "no"}),
    "ranking": ("preference", {"prompt": "ask", "answers": ["yes", "no"], "scores": [2, 1]}),
    "unpaired": ("unpaired", {"prompt": "ask", "completion": "yes", "label": True}),
    "prompts": ("prompts", {"prompt": "ask", "solution": "yes"}),
}


def look(folder: Path, name: str, **options: Any) -> tuple[Any, Any]:
    rows, record = RECORDS[name]
    (folder / "a.jsonl").write_text((json.dumps(record) + "\n") * 3)
    run = chat_run(folder, **options)
    asked = request(folder, {"path": "a.jsonl", "format": name}, rows=rows)
    return run.plugin("dataset").preview(run, asked, 2), run.plugin("dataset").stats(run, asked)


@pytest.mark.parametrize("name", RECORDS)
def test_every_format_can_be_looked_at(tmp_path: Path, name: str) -> None:
    shown, found = look(tmp_path, name)
    assert len(shown.samples) == 2
    sample = shown.samples[0]
    assert "ask" in sample.text
    assert "yes" in sample.text
    trained = [sample.text[span.start : span.end] for span in sample.trained]
    if name == "prompts":
        assert trained == []
    else:
        assert any("yes" in text for text in trained)
    assert found.lengths == shown.lengths
    assert found.trained_tokens == shown.trained_tokens
    assert (found.rows_read, found.duplicates) == (3, 2)
    assert found.sources["a.jsonl"] == (3, sum(found.lengths))
    if name == "text":
        assert not found.roles and not found.turns
    else:
        assert found.roles["user"] == 3
        assert found.turns == {1: 3}
        answers = {"preference": 6, "ranking": 6, "prompts": 0}.get(name, 3)
        assert found.roles["assistant"] == answers


@pytest.mark.parametrize("policy", ["end", "start"])
def test_of_a_cut_row_what_is_left_is_shown(tmp_path: Path, policy: str) -> None:
    turns = [
        {"messages": [*ASKED, {"role": "assistant", "content": " ".join(map(str, range(100)))}]}
    ]
    (tmp_path / "a.jsonl").write_text(json.dumps(turns[0]))
    run = chat_run(tmp_path, truncate=policy)
    (sample,) = (
        run.plugin("dataset").preview(run, request(tmp_path, "a.jsonl", max_length=80), 1).samples
    )
    assert tokenizer().encode(sample.text) == sample.input_ids
    (span,) = sample.trained
    trained = [token for token in sample.labels if token != -100]
    assert tokenizer().encode(sample.text[span.start : span.end]) == trained
    assert sample.text.startswith("<|im_start|>user") == (policy == "end")
    assert sample.text.endswith("99<|im_end|>") == (policy == "start")


def test_of_a_split_document_each_piece_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat sat on the mat " * 9)
    run = chat_run(tmp_path)
    asked = request(tmp_path, "a.txt", rows="text", max_length=20)
    samples = run.plugin("dataset").preview(run, asked, 9).samples
    assert len(samples) > 2
    assert (
        "".join(sample.text for sample in samples) == "the cat sat on the mat " * 9 + "<|im_end|>"
    )
    assert all(sample.trained == [Span(0, len(sample.text))] for sample in samples)


def test_what_is_left_out_is_counted_and_its_roles_too(tmp_path: Path) -> None:
    long = {
        "messages": [{"role": "system", "content": "word " * 300}, *ASKED, *ANSWER, *ASKED, *ANSWER]
    }
    lines = [json.dumps(each) for each in (RECORDS["openai"][1], long)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "broken"]))
    run = chat_run(tmp_path, on_bad_row="skip")
    found = run.plugin("dataset").stats(run, request(tmp_path, "a.jsonl"))
    assert found.dropped == {"longer than max_length (200 tokens)": 1, "cannot be used": 1}
    assert found.roles == {"system": 1, "user": 3, "assistant": 3}
    assert found.turns == {1: 1, 2: 1}
    shown = {title: rows for title, _, rows in tables(found)}
    assert ("cannot be used", "1", "33.3 %") in shown["Left out"]
    assert ("1", "1", "50.0 %") in shown["Turns of a user in a row"]
    assert ("records read", "3", "") in shown["RowKind"]
    assert ("assistant", "3", "42.9 %") in shown["Who speaks"]


def test_a_picture(tmp_path: Path) -> None:
    from matplotlib.image import imread

    _, found = look(tmp_path, "openai")
    draw(found, tmp_path / "stats.png")
    height, width, _ = imread(tmp_path / "stats.png").shape
    assert (height, width) == (1050, 1650)
    assert not list(tmp_path.glob("*.tmp"))


def test_percentiles() -> None:
    assert percentile(list(range(1, 101)), 95) == 95
    assert percentile([3], 95) == 3
    assert percentile([1, 9], 95) == 9
