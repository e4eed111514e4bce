"""Rows that are too long or cannot be used: cut, left out or the end of the run, never silently."""

from pathlib import Path

import pytest

from data.chat_setup import chat, trained, write
from data.running import TEMPLATE, build, chat_run, request, tokenizer
from tunewright import RowError, RunError

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
