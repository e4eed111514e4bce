"""Tests for formats: one item per record, whatever the record is."""

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright import Format, RowError
from tunewright.registry import Entry, load
from tunewright.types import ROW_TYPES, Conversation, Origin, RowsRequest
from tunewright_conformance.bench import on_bench
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.goldens import samples
from tunewright_conformance.suite import Suite

JUNK: list[Any] = [
    None,
    True,
    0,
    -1.5,
    "",
    "plain text",
    [],
    [[]],
    [None],
    {},
    {"": ""},
    {"text": None},
    {"text": 3},
    {"text": {}},
    {"messages": None},
    {"messages": {}},
    {"messages": [None]},
    {"messages": [{}]},
    {"messages": [{"role": []}]},
    {"messages": [{"role": "user", "content": 7}]},
    {"messages": [{"role": "nobody", "content": "x"}]},
    {"messages": [{"role": "assistant", "content": "x", "tool_calls": "x"}]},
    {"conversations": "x"},
    {"conversations": [{"from": "human"}]},
    {"conversations": [{"from": {}, "value": []}]},
    {"instruction": None},
    {"instruction": ["x"], "output": {}},
    {"instruction": "x", "output": "x", "history": [["x"]]},
    {"prompt": [], "chosen": None, "rejected": 0},
    {"prompt": "x", "completion": "y", "label": "maybe"},
]


class TestFormat(Suite):
    kinds = ("format",)

    def test_declares_its_rows(self, entry: Entry) -> None:
        """The format is a tunewright.Format, and declares the kinds of rows it gives."""
        plugin = load(entry)
        assert issubclass(plugin, Format)
        assert plugin.rows
        assert set(plugin.rows) <= set(ROW_TYPES)

    def test_reads_its_samples(self, entry: Entry, tmp_path: Path) -> None:
        """Every sample record becomes a row of a declared kind, with its origin."""
        records = samples(entry)
        assert records, (
            f"put some of its records into goldens/{entry.name}.jsonl in the plugin's package"
        )
        for rows in load(entry).rows:
            for number, row in enumerate(convert(entry, tmp_path, records, rows), 1):
                assert isinstance(row, ROW_TYPES[rows]), f"record {number}: {row}"
                assert row.origin == Origin("sample.jsonl", number)
                if isinstance(row, Conversation):
                    assert any(message.role == "assistant" for message in row.messages)

    def test_every_record_gives_one_item(self, entry: Entry, tmp_path: Path) -> None:
        """Every record gives a row, or a RowError with its line, in order."""
        for rows in load(entry).rows:
            items = convert(entry, tmp_path, JUNK, rows)
            assert len(items) == len(JUNK)
            for number, item in enumerate(items, 1):
                if isinstance(item, RowError):
                    assert f"sample.jsonl:{number}" in item.place, (
                        f"the place of {item!r} names no line"
                    )
                    assert item.problem
                else:
                    assert isinstance(item, ROW_TYPES[rows])
                    assert item.origin == Origin("sample.jsonl", number)

    def test_same_records_same_rows(self, entry: Entry, tmp_path: Path) -> None:
        """Reading twice gives the same rows, and does not change the records."""
        records = samples(entry) + JUNK
        kept = copy.deepcopy(records)
        for rows in load(entry).rows:
            once, twice = (
                list(map(str, convert(entry, tmp_path, records, rows))) for _ in range(2)
            )
            assert once == twice
        assert json.dumps(records) == json.dumps(kept)

    def test_is_lazy(self, entry: Entry, tmp_path: Path) -> None:
        """Rows are yielded while records are read: a source may be larger than memory."""
        taken = 0

        def records() -> Iterator[tuple[Origin, Any]]:
            nonlocal taken
            while taken < 100 * len(JUNK):
                taken += 1
                yield Origin("long.jsonl", taken), JUNK[taken % len(JUNK)]

        found = call(entry, tmp_path, records(), load(entry).rows[0])
        assert len(list(itertools.islice(found, 3))) == 3
        assert taken < 1000, "reads far ahead of what it gives"

    def test_detection_never_raises(self, entry: Entry) -> None:
        """`matches` accepts any value, and claims none that is not a record."""
        plugin = load(entry)
        nothing: list[Any] = [None, True, 0, [], {}]
        assert {plugin.matches(record) for record in JUNK} <= {True, False}
        assert not any(plugin.matches(record) for record in nothing)


def convert(entry: Entry, folder: Path, records: list[Any], rows: Any) -> list[Any]:
    numbered = [
        (Origin("sample.jsonl", number), record) for number, record in enumerate(records, 1)
    ]
    return list(call(entry, folder, iter(numbered), rows))


def call(
    entry: Entry, folder: Path, records: Iterator[tuple[Origin, Any]], rows: Any
) -> Iterator[Any]:
    found: Iterator[Any] = on_bench(entry).call(
        "convert_rows", run=FakeRun(folder), request=RowsRequest(records, rows)
    )
    return found
