"""Rows that are read while training goes on: what comes, in which order, and from any place on
again."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.running import build, chat_run, request, tokenizer
from tunewright import RecipeError, RowError
from tunewright.types import DataRequest, LoadedModel
from tunewright_dataset_chat import Chat, streamed_dataset
from tunewright_dataset_chat.streamed_dataset import _Epoch
from tunewright_hf.batching.row_stream import RowStream


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_dataset, "WINDOW", 8)
    monkeypatch.setattr(streamed_dataset, "_AT_ONCE", 3)


def write(path: Path, words: list[str]) -> str:
    turns = [
        ({"role": "user", "content": word}, {"role": "assistant", "content": word})
        for word in words
    ]
    path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    return path.name


def names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]


def streamed(
    folder: Path, *entries: Any, changes: dict[str, Any] | None = None, **options: Any
) -> Any:
    return build(
        chat_run(folder, streaming=True, **options), request(folder, *entries, **(changes or {}))
    )


def words(window: Any) -> list[str]:
    texts = tokenizer().batch_decode([row["input_ids"] for row in window.rows])
    return [text.split("user\n")[1].split("<|")[0] for text in texts]


def epoch(data: Any, number: int = 0) -> list[str]:
    return [word for window in data.train.windows(number, 0, {}) for word in words(window)]


# ---- what comes ----------------------------------------------------------------------------------


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    entries = [
        write(tmp_path / f"{letter}.jsonl", names(letter, count))
        for letter, count in (("a", 20), ("b", 9))
    ]
    data = streamed(tmp_path, *entries, shuffle_buffer=7)
    assert isinstance(data.train, RowStream)
    one, two = epoch(data), epoch(data, 1)
    assert sorted(one) == sorted(two) == sorted(names("a", 20) + names("b", 9))
    assert one != two
    again = streamed(tmp_path, *entries, shuffle_buffer=7)
    assert (epoch(again), epoch(again, 1)) == (one, two)
    assert epoch(streamed(tmp_path, *entries, shuffle_buffer=7, changes={"seed": 1})) != one
    assert len(data.train) == 58  # that were given
    assert data.notes == [
        f"{name}: read while training, format openai (detected)" for name in ("a.jsonl", "b.jsonl")
    ]


def test_files_come_in_another_order_each_epoch_and_a_buffer_of_one_keeps_theirs(
    tmp_path: Path,
) -> None:
    (tmp_path / "many").mkdir()
    for letter in "abcdef":
        write(tmp_path / "many" / f"{letter}.jsonl", names(letter, 2))
    data = streamed(tmp_path, "many", shuffle_buffer=1)
    orders = ["".join(word[0] for word in epoch(data, number)[::2]) for number in range(4)]
    assert len(set(orders)) > 1
    assert {"".join(sorted(order)) for order in orders} == {"abcdef"}
    limited = streamed(tmp_path, {"path": "many", "limit": 3}, shuffle_buffer=1)
    assert epoch(limited) == epoch(limited, 5) == ["a0", "a1", "b0"]


@given(st.integers(0, 30), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_a_buffer_gives_every_item_once_and_holds_few(count: int, size: int, seed: int) -> None:
    taken: list[int] = []

    class Counted(_Epoch):
        def _one_after_the_other(self) -> Iterator[Any]:
            for number in range(count):
                taken.append(number)
                yield 0, number

    run: Any = None
    asked = DataRequest([], {}, "text", LoadedModel(None, None), 9, seed)
    found: list[Any] = []
    for _, number in Counted(run, asked, Chat.Options(shuffle_buffer=size), [], 3).shuffled():
        found.append(number)
        assert len(taken) <= len(found) + size
    assert sorted(found) == list(range(count))


# ---- mixing --------------------------------------------------------------------------------------


def test_interleaved_sources_have_their_shares_at_all_times(tmp_path: Path) -> None:
    sources = [
        write(tmp_path / "a.jsonl", names("a", 30)),
        write(tmp_path / "b.jsonl", names("b", 12)),
    ]
    entries = [{"path": sources[0], "weight": 3}, {"path": sources[1]}]
    first = [
        word[0]
        for word in epoch(streamed(tmp_path, *entries, mixing="interleave", shuffle_buffer=1))
    ]
    for at in range(1, len(first)):
        assert abs(first[:at].count("b") - at / 4) <= 8  # windows hold 8 records, source by source
    assert Counter(first) == {"a": 30, "b": 10}  # all of a, and b's share
    every = Counter(
        epoch(streamed(tmp_path, *entries, mixing="interleave", stop="all", shuffle_buffer=5))
    )
    assert {word for word in every if word[0] == "b"} == set(names("b", 12))
    assert sum(count for word, count in every.items() if word[0] == "a") in range(36, 40)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0.1, 9)), min_size=1, max_size=4),
    st.sampled_from(["first", "all"]),
)
def test_each_next_record_is_of_the_source_furthest_behind(
    sources: list[tuple[int, float]], stop: Any
) -> None:
    weights = [weight for _, weight in sources]

    class Counted(_Epoch):
        def _items(self, place: int, turn: int = 0) -> Iterator[Any]:
            return ((place, number) for number in range(sources[place][0]))

    entries: list[Any] = [
        SimpleNamespace(entry=SimpleNamespace(weight=weight)) for weight in weights
    ]
    nothing: Any = None
    found = list(Counted(nothing, nothing, Chat.Options(stop=stop), entries, 0)._interleaved())
    given_so_far = Counter[int]()
    for at, (place, _) in enumerate(found, 1):
        given_so_far[place] += 1
        for each, weight in enumerate(weights):
            assert abs(given_so_far[each] - at * weight / sum(weights)) < len(weights) + 1
    complete = [given_so_far[place] >= count for place, (count, _) in enumerate(sources)]
    assert any(complete) if stop == "first" else all(complete)
    if stop == "first":
        assert all(given_so_far[place] <= count for place, (count, _) in enumerate(sources))


# ---- from any place on ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"mixing": "interleave", "stop": "all"}], ids=["concatenate", "interleave"]
)
def test_from_any_window_on_it_is_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    good = names("a", 21)
    entries = [
        write(tmp_path / "a.jsonl", [*good, "long " * 99]),
        write(tmp_path / "b.jsonl", names("b", 14)),
    ]
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write("broken\n")
    options = {"shuffle_buffer": 6, "on_bad_row": "skip", **options}
    data = streamed(tmp_path, *entries, **options)
    whole = list(data.train.windows(2, 0, {}))
    assert len(whole) > 3
    for at in range(1, len(whole)):
        rest = list(
            streamed(tmp_path, *entries, **options).train.windows(2, at, whole[at - 1].seen)
        )
        assert [list(window.rows) for window in rest] == [
            list(window.rows) for window in whole[at:]
        ]
        assert [window.seen for window in rest] == [window.seen for window in whole[at:]]
    summary = data.train.summary(json.loads(json.dumps(whole[-1].seen)))
    assert "1 row dropped: cannot be used" in summary
    assert "1 row dropped: longer than max_length (200 tokens)" in summary
    assert any("b.jsonl:15: is not valid JSON" in line for line in summary)
    assert f"{whole[-1].seen['records']} records read while training" == summary[0]


def test_memory_is_bounded_and_nothing_is_stored(tmp_path: Path) -> None:
    """A source without end: only so much is read as is asked for."""
    name = write(tmp_path / "a.jsonl", names("a", 500))
    run = chat_run(tmp_path, streaming=True, shuffle_buffer=20, cache="cache")
    data = build(run, request(tmp_path, name))
    windows = list(islice(data.train.windows(0, 0, {}), 2))
    assert [len(window.rows) for window in windows] == [8, 8]
    assert windows[-1].seen["records"] <= 8 + 8 + 20
    assert [path.name for path in tmp_path.iterdir() if path.name != "stub.jinja"] == ["a.jsonl"]


def test_evaluation_data_is_prepared_as_ever(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", names("a", 5))
    evals = request(tmp_path, {"path": name, "limit": 2}).entries
    data = streamed(tmp_path, name, changes={"eval_entries": {"held": evals}})
    assert len(data.evals["held"]) == 2
    assert len(epoch(data)) == 5


def test_documents_are_streamed_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{'word ' * 20}{number}\n" for number in range(10)))
    data = streamed(tmp_path, "a.txt", changes={"rows": "text", "max_length": 16})
    rows = [row for window in data.train.windows(0, 0, {}) for row in window.rows]
    assert max(len(row["input_ids"]) for row in rows) == 16
    plain = build(chat_run(tmp_path), request(tmp_path, "a.txt", rows="text", max_length=16))
    assert sorted(row["input_ids"] for row in rows) == sorted(
        row["input_ids"] for row in plain.train
    )


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "entry", "changes", "said"),
    [
        (
            {"validation": 1},
            {},
            {},
            "dataset.validation: cannot choose among rows that are not read yet",
        ),
        (
            {"prepared": "there"},
            {},
            {},
            "dataset.prepared: holds prepared rows, which are not streamed",
        ),
        ({"workers": 2}, {}, {}, "dataset.workers: streaming starts no processes"),
        ({}, {"weight": 2}, {}, "data.0.weight: is a share of rows whose number is not known"),
        (
            {},
            {},
            {"rows": "preference"},
            "dataset.streaming: gives text and messages, and the stage needs preference",
        ),
    ],
)
def test_what_a_stream_cannot_do_is_reported(
    tmp_path: Path,
    options: dict[str, Any],
    entry: dict[str, Any],
    changes: dict[str, Any],
    said: str,
) -> None:
    name = write(tmp_path / "a.jsonl", names("a", 3))
    with pytest.raises(RecipeError) as raised:
        streamed(tmp_path, {"path": name, **entry}, changes=changes, **options)
    assert said in str(raised.value)


def test_a_bad_row_ends_the_stream_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", names("a", 10))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"messages": 3}\n')
    with pytest.raises(RowError, match=r"a\.jsonl:11"):
        epoch(streamed(tmp_path, "a.jsonl"))
    (tmp_path / "b.jsonl").write_text("\n")
    with pytest.raises(RecipeError, match="holds no record"):
        streamed(tmp_path, "b.jsonl")


def test_the_fingerprint_knows_files_by_name_and_size(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", names("a", 5))
    one = streamed(tmp_path, name).fingerprint
    assert streamed(tmp_path, name).fingerprint == one
    assert streamed(tmp_path, name, shuffle_buffer=3).fingerprint != one
    write(tmp_path / "a.jsonl", names("a", 6))
    assert streamed(tmp_path, name).fingerprint != one


def test_a_preview_reads_only_the_first_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_dataset_chat.look.LOOKED_AT", 4)
    name = write(tmp_path / "a.jsonl", names("a", 50))
    run = chat_run(tmp_path, streaming=True)
    shown = run.plugin("dataset").preview(run, request(tmp_path, name), 2)
    assert (shown.rows_read, len(shown.samples)) == (4, 2)
