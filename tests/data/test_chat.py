"""The dataset: from files to rows of ids and labels, with nothing lost silently."""

import copy
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.chat_setup import chat, trained, write
from data.running import TEMPLATE, build, chat_run, request, tokenizer
from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_dataset_chat.look import preview

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "data"


# ---- rows ----------------------------------------------------------------------------------------


def test_rows_are_ids_and_labels_in_order(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", chat("hi", "the cat"), chat("a", "b", "c", "d"))
    data = build(chat_run(tmp_path), request(tmp_path, name))
    assert data.train.column_names == ["input_ids", "labels"]
    first = data.train[0]
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nthe cat<|im_end|>"
    assert tokenizer().decode(first["input_ids"]) == text
    assert [trained(row) for row in data.train] == ["the cat<|im_end|>", "b<|im_end|>d<|im_end|>"]
    assert (data.rows_read, data.dropped) == (2, {})
    assert "a.jsonl: 2 records, format openai (detected)" in data.notes


def test_loss_weights_stand_only_where_a_message_has_its_own(tmp_path: Path) -> None:
    half = chat("a", "b")
    half["messages"][1]["weight"] = 0.5
    name = write(tmp_path / "a.jsonl", chat("a", "b"), half)
    plain, weighted = build(chat_run(tmp_path), request(tmp_path, name)).train
    assert plain["loss_weights"] is None
    assert {
        w
        for w, label in zip(weighted["loss_weights"], weighted["labels"], strict=True)
        if label != -100
    } == {0.5}


def test_evaluation_sets_have_their_names(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", chat("a", "b"), chat("c", "d"))
    held = write(tmp_path / "b.jsonl", chat("e", "f"))
    asked = request(tmp_path, train)
    asked.eval_entries = {"held": request(tmp_path, held).entries}
    data = build(chat_run(tmp_path), asked)
    assert (len(data.train), list(data.evals), len(data.evals["held"]), data.rows_read) == (
        2,
        ["held"],
        1,
        3,
    )


def test_limits_of_entry_and_request(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", *[chat("a", "b")] * 9)
    assert len(build(chat_run(tmp_path), request(tmp_path, {"path": name, "limit": 5})).train) == 5
    assert (
        len(build(chat_run(tmp_path), request(tmp_path, {"path": name, "limit": 5}, limit=2)).train)
        == 2
    )


@pytest.mark.parametrize("name", ["wren.jsonl", "wren_pirate.jsonl", "sample_alpaca.jsonl"])
def test_examples_are_read_whole(tmp_path: Path, name: str) -> None:
    data = build(chat_run(tmp_path), request(EXAMPLES, name, max_length=1000))
    assert (data.rows_read, data.dropped) == (len(data.train), {})


def test_documents_lose_no_token(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n\n" + "the cat " * 100 + "\n", encoding="utf-8")
    run = chat_run(tmp_path)
    whole = build(run, request(tmp_path, "a.txt", rows="text", max_length=9999)).train
    total = len(whole[1]["input_ids"])
    for size in (total - 1, total // 3, 7):
        data = build(run, request(tmp_path, "a.txt", rows="text", max_length=size))
        pieces = [row["input_ids"] for row in data.train]
        assert max(map(len, pieces)) <= size
        assert min(map(len, pieces)) > 1
        assert list(chain(*pieces)) == list(chain(*whole["input_ids"]))
        assert data.rows_read == 2
        assert any(
            note.startswith("further rows, because long documents were split: ")
            for note in data.notes
        )
    assert whole[1]["labels"] == whole[1]["input_ids"]
    assert whole[1]["input_ids"][-1] == tokenizer().eos_token_id


# ---- formats -------------------------------------------------------------------------------------


def test_detection_knows_renamed_columns(tmp_path: Path) -> None:
    record = {"dialogue": chat("a", "b")["messages"]}
    entry = {"path": write(tmp_path / "a.jsonl", record), "columns": {"messages": "dialogue"}}
    assert len(build(chat_run(tmp_path), request(tmp_path, entry)).train) == 1


def test_detection_says_what_it_saw(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", {"question": "a", "answer": "b"})
    with pytest.raises(
        RecipeError, match="an object with question, answer: no format fits"
    ) as caught:
        build(chat_run(tmp_path), request(tmp_path, name))
    assert caught.value.place.endswith("a.jsonl:1")
    assert "alpaca, labelled, openai, preference, prompt_completion" in caught.value.hint
    both = write(tmp_path / "b.jsonl", chat("a", "b") | {"instruction": "a", "output": "b"})
    with pytest.raises(RecipeError, match="alpaca and openai fits"):
        build(chat_run(tmp_path), request(tmp_path, both))
    assert (
        len(build(chat_run(tmp_path), request(tmp_path, {"path": both, "format": "openai"})).train)
        == 1
    )


def test_wrong_rows_are_refused(tmp_path: Path) -> None:
    chats = write(tmp_path / "a.jsonl", chat("a", "b"))
    (tmp_path / "b.txt").write_text("a\n")
    for entry, rows in (
        ("b.txt", "messages"),
        ({"path": "b.txt", "format": "text"}, "messages"),
        (chats, "text"),
    ):
        with pytest.raises(RecipeError, match=f"gives (text|messages), the stage needs {rows}"):
            build(chat_run(tmp_path), request(tmp_path, entry, rows=rows))


# ---- fingerprint ---------------------------------------------------------------------------------


def test_fingerprint_changes_with_everything_that_matters(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for folder in (tmp_path, other):
        write(folder / "a.jsonl", chat("a", "b"))
    write(tmp_path / "b.jsonl", chat("a", "c"))
    write(tmp_path / "c.jsonl", {"dialogue": chat("a", "b")["messages"]} | chat("a", "b"))
    run = chat_run(tmp_path)

    def made(run: Any = run, folder: Path = tmp_path, path: Any = "a.jsonl", **changes: Any) -> str:
        found: str = build(run, request(folder, path, **changes)).fingerprint
        return found

    base = made()
    assert made() == base
    assert made(folder=other) == base
    assert made(path={"path": "a.jsonl", "format": "openai"}) == base
    more = copy.deepcopy(tokenizer())
    more.add_tokens(["cat"])
    templated = copy.deepcopy(tokenizer())
    templated.chat_template = "{{ messages }}"  # what the template `auto` renders
    changed = [
        made(path="b.jsonl"),
        made(path={"path": "c.jsonl"}),
        made(path={"path": "c.jsonl", "columns": {"messages": "dialogue"}}),
        made(path={"path": "a.jsonl", "limit": 1}),
        made(limit=1),
        made(loaded=LoadedModel(None, more)),
        made(loaded=LoadedModel(None, templated)),
        made(max_length=100),
        made(run=chat_run(tmp_path, truncate="end")),
        made(run=chat_run(tmp_path, on_bad_row="skip")),
        made(
            run=chat_run(
                tmp_path,
                TEMPLATE.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>"),
            )
        ),
        made(eval_entries={"held": request(tmp_path, "b.jsonl").entries}),
    ]
    assert len({base, *changed}) == len(changed) + 1


# ---- preview -------------------------------------------------------------------------------------


def test_preview_shows_rows_and_counts_all(tmp_path: Path) -> None:
    name = write(
        tmp_path / "a.jsonl", chat("a", "b"), chat("a"), chat("c", "d"), chat("e", "f" * 500)
    )
    run = chat_run(tmp_path, on_bad_row="skip")
    shown = preview(run, request(tmp_path, name), 1)
    (sample,) = shown.samples
    assert sample.origin.endswith("a.jsonl:1")
    assert [sample.text[span.start : span.end] for span in sample.trained] == ["b<|im_end|>"]
    assert len(shown.lengths) == 2
    assert shown.trained_tokens == 4
    assert (shown.rows_read, sum(shown.dropped.values())) == (4, 2)
    data = build(run, request(tmp_path, name))
    assert sample.input_ids == data.train[0]["input_ids"]
    assert shown.lengths == [len(row["input_ids"]) for row in data.train]


# ---- properties ----------------------------------------------------------------------------------


words = st.text(st.characters(codec="utf-8"), max_size=30)
chats = st.builds(lambda texts: chat(*texts), st.lists(words, max_size=6))


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    records=st.lists(chats | st.just({"messages": 3}), min_size=1, max_size=8),
    max_length=st.integers(2, 120),
    truncate=st.sampled_from(["drop", "end", "turns"]),
)
def test_every_record_is_kept_or_counted(
    tmp_path: Path, records: list[Any], max_length: int, truncate: str
) -> None:
    name = write(tmp_path / "a.jsonl", chat("first", "one"), *records)
    run = chat_run(tmp_path, on_bad_row="skip", truncate=truncate)
    shown = preview(run, request(tmp_path, name, max_length=max_length), 99)
    assert shown.rows_read == len(records) + 1
    assert len(shown.samples) + sum(shown.dropped.values()) == shown.rows_read
    for sample in shown.samples:
        assert len(sample.input_ids) == len(sample.labels) <= max_length
        pairs = zip(sample.input_ids, sample.labels, strict=True)
        assert all(label in (-100, token) for token, label in pairs)
        assert any(label != -100 for label in sample.labels[1:])
