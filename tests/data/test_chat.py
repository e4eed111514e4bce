"""The dataset: from files to rows of ids and labels, with nothing lost silently."""

import copy
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.running import TEMPLATE, build, chat_run, request, tokenizer
from tunewright import RecipeError, RowError, RunError
from tunewright.types import LoadedModel
from tunewright_dataset_chat.look import preview

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "data"


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    """Texts of user and assistant in turn."""
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    } | more


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path.name


def trained(row: dict[str, Any]) -> str:
    return tokenizer().decode([label for label in row["labels"] if label != -100])


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


# ---- too long ------------------------------------------------------------------------------------


def test_too_long_is_dropped_and_counted(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", chat("a", "b"), chat("a", "b " * 99))
    data = build(chat_run(tmp_path), request(tmp_path, name, max_length=50))
    assert len(data.train) == 1
    assert data.dropped == {"longer than max_length (50 tokens)": 1}


def test_cut_at_the_end_is_reported_and_has_no_end_token(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", chat("a", "b" * 99), chat("a" * 99, "b"), chat("a", "b"))
    data = build(chat_run(tmp_path, truncate="end"), request(tmp_path, name, max_length=50))
    assert [len(row["input_ids"]) == 50 for row in data.train] == [True, False]
    assert set(trained(data.train[0])) == {"b"}
    assert data.dropped == {"nothing to train within max_length": 1}
    assert "rows that were cut at their end to fit into 50 tokens: 1" in data.notes


def test_oldest_turns_go_first_and_the_system_message_stays(tmp_path: Path) -> None:
    texts = [f"{letter}" * 20 for letter in "abcdefgh"]
    long = chat(*texts, system="s")
    name = write(tmp_path / "a.jsonl", long, chat("x" * 200, "y"))
    run = chat_run(tmp_path, truncate="turns")
    data = build(run, request(tmp_path, name, max_length=120))
    (row,) = data.train
    text = tokenizer().decode(row["input_ids"])
    kept = [letter for letter in "sabcdefgh" if letter * (1 if letter == "s" else 20) in text]
    assert kept[0] == "s"
    assert kept[-1] == "h"
    assert len(kept) % 2 == 1
    assert len(row["input_ids"]) <= 120
    one_more = [m for m in long["messages"] if m["content"][0] >= chr(ord(kept[1]) - 2)]
    more = write(tmp_path / "b.jsonl", {"messages": one_more, "system": "s"})
    assert len(build(run, request(tmp_path, more, max_length=999)).train[0]["input_ids"]) > 120
    assert data.dropped == {"longer than max_length (120 tokens)": 1}
    assert "rows that lost their oldest turns to fit into 120 tokens: 1" in data.notes


# ---- rows that cannot be used --------------------------------------------------------------------

BROKEN = '{"messages": [{"role": "user", "content": "a"}\n'


def test_bad_row_ends_the_run_with_its_line(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", chat("a", "b"), chat("a"))
    with pytest.raises(RowError) as caught:
        build(chat_run(tmp_path), request(tmp_path, name))
    assert caught.value.place == f"{tmp_path / name}:2"
    assert "on_bad_row: skip" in caught.value.hint


def test_broken_line_ends_the_run_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", chat("a", "b"))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("\n" + BROKEN)
    with pytest.raises(RowError, match="is not valid JSON") as caught:
        build(chat_run(tmp_path), request(tmp_path, "a.jsonl"))
    assert caught.value.place.endswith("a.jsonl:3")


def test_files_are_named_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RowError) as caught:
        build(chat_run(tmp_path), request(tmp_path / "data", "a.jsonl"))
    assert caught.value.place == str(Path("data/a.jsonl:1"))


def test_skipped_rows_are_counted_and_named(tmp_path: Path) -> None:
    untrained = chat("a", "b")
    untrained["messages"][1]["train"] = False
    write(tmp_path / "a.jsonl", chat("a", "b"), chat("a"), untrained, *[chat("x")] * 5)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(BROKEN)
    data = build(chat_run(tmp_path, on_bad_row="skip"), request(tmp_path, "a.jsonl"))
    assert (len(data.train), data.rows_read, data.dropped) == (1, 9, {"cannot be used": 8})
    left_out = [note for note in data.notes if note.startswith("left out")]
    assert len(left_out) == 6
    assert left_out[-1] == "left out: 3 more rows that cannot be used"
    assert "a.jsonl:2: messages[0]: the last message is from user" in left_out[0]


def test_answer_without_weight_is_nothing_to_train(tmp_path: Path) -> None:
    untrained = chat("a", "b")
    untrained["messages"][1]["train"] = False
    with pytest.raises(RowError, match=r"a\.jsonl:2: no answer in it is trained"):
        build(
            chat_run(tmp_path),
            request(tmp_path, write(tmp_path / "a.jsonl", chat("a", "b"), untrained)),
        )


def test_template_that_refuses_a_row_names_its_line(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", chat("a", "b", system="s"))
    run = chat_run(tmp_path, "{{ raise_exception('no system here') }}" + TEMPLATE)
    with pytest.raises(RowError, match="no system here") as caught:
        build(run, request(tmp_path, name))
    assert caught.value.place.endswith("a.jsonl:1")


def test_the_template_says_who_speaks_after_whom(tmp_path: Path) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "user", "assistant", "assistant")]
    name = write(tmp_path / "a.jsonl", chat("a", "b"), {"messages": turns})
    with pytest.raises(
        RowError,
        match=r"a\.jsonl:2: message 2 is from user, expected assistant after user.*role_order",
    ):
        build(chat_run(tmp_path), request(tmp_path, name))
    run = chat_run(tmp_path)
    template = run.plugins["template"]
    run.plugins["template"] = type(template)(template.Options(role_order="any"), "stub")
    assert len(build(run, request(tmp_path, name)).train) == 2


def test_media_are_not_left_out_silently(tmp_path: Path) -> None:
    record = {"instruction": "<image>?", "output": "a", "images": ["1.jpg"]}
    (tmp_path / "1.jpg").write_bytes(b"")
    run = chat_run(tmp_path, "{#- tunewright\nmedia = true\n-#}" + TEMPLATE)
    with pytest.raises(
        RowError, match=r"a\.jsonl:1: has image '1\.jpg', and these rows hold text only"
    ):
        build(run, request(tmp_path, write(tmp_path / "a.jsonl", record)))


def test_nothing_left(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", chat("a", "b"))
    with pytest.raises(
        RunError, match=r"no row is left of 1: 1 longer than max_length \(3 tokens\)"
    ):
        build(chat_run(tmp_path), request(tmp_path, name, max_length=3))


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
