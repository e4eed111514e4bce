"""Worker processes give what one process gives: the same rows in the same order, the same counts,
the same errors."""

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.running import build, request, tokenizer
from tunewright import RowError, RunError
from tunewright.check import resolve
from tunewright.recipe import Section
from tunewright.run import Run
from tunewright_dataset_chat import source_stream
from tunewright_dataset_chat.chunk_processor import ChunkProcessor
from tunewright_dataset_chat.source import open_sources
from tunewright_dataset_chat.source_stream import Stream
from tunewright_dataset_chat.workers import Workers


def run_of(folder: Path, stage: str = "sft", **dataset: Any) -> Run:
    return Run(
        resolve(
            {
                "model": "tiny",
                "family": "qwen",
                "template": "chatml",
                "stage": stage,
                "data": [{"path": "a.jsonl"}],
                "dataset": {
                    "name": "chat",
                    "cache": str(folder / str(dataset.get("workers", 1))),
                    **dataset,
                },
                "output": str(folder / "run"),
            }
        )
    )


def chat(number: int) -> dict[str, Any]:
    answer = {
        "role": "assistant",
        "content": "b" * (number % 7 + 1),
        "weight": 0.5 if number == 33 else 1,
    }
    return {
        "messages": [
            {"role": "user", "content": f"{number} " + "long " * 300 * (number % 9 == 8)},
            answer,
        ]
    }


def write(folder: Path, records: list[Any]) -> None:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_stream, "BATCH", 5)


def test_rows_and_counts_are_those_of_one_process(tmp_path: Path) -> None:
    records: list[Any] = [chat(number) for number in range(57)]
    records[7] = "{"
    records[20] = {"messages": [{"role": "user", "content": "no answer"}]}
    records[30] = chat(30) | {"context": "c"}
    records[33] = chat(33) | {"context": json.loads("[" * 900 + "]" * 900)}  # cannot be sent
    write(tmp_path, records)
    one, two = (
        build(run_of(tmp_path, workers=count, on_bad_row="skip"), request(tmp_path, "a.jsonl"))
        for count in (1, 2)
    )
    files = [(tmp_path / str(count)).glob("*/rows.arrow") for count in (1, 2)]
    first, second = (next(found).read_bytes() for found in files)
    assert first == second
    assert len(one.train) == 57 - 2 - 6
    assert list(one.train) == list(two.train)
    assert [note for note in two.notes if "not read" in note] == [
        "a.jsonl: not read: column context (2 rows)"
    ]
    assert (one.dropped, one.notes, one.fingerprint) == (two.dropped, two.notes, two.fingerprint)
    assert not multiprocessing.active_children()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    with Workers(2, run_of(tmp_path), request(tmp_path), "drop") as made:
        yield made


def streams(folder: Path, kind: Any = "messages", skip: bool = False) -> Iterator[Stream]:
    """The same source again and again."""
    from tunewright_dataset_chat.row_processor import RowProcessor

    run, asked = run_of(folder), request(folder, "a.jsonl", rows=kind)
    while True:
        (source,) = open_sources(asked.entries, "data", folder)
        yield Stream(
            run,
            source,
            asked,
            ChunkProcessor(run, RowProcessor.of(run, tokenizer(), kind, 200, "drop")),
            skip,
        )


@pytest.mark.slow
def test_the_first_bad_row_ends_the_run_and_a_dead_worker_is_reported(
    tmp_path: Path, workers: Workers
) -> None:
    records: list[Any] = [chat(0)] * 60
    records[23] = {"messages": []}
    records[24] = "{"
    records[41] = {"messages": [{"role": "user", "content": "no answer"}]}
    write(tmp_path, records)
    of = streams(tmp_path)
    places = []
    for count in (1, 2):
        workers.count = count
        with pytest.raises(RowError) as caught:
            list(next(of).batches(None, workers))
        places.append((caught.value.place, caught.value.problem, caught.value.hint))
    assert places[0] == places[1]
    assert places[0][0].endswith("a.jsonl:24")

    write(tmp_path, [chat(0)] * 60)
    # started anew
    assert sum(made.batch.num_rows for made in next(of).batches(None, workers) if made.batch) == 60
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    with pytest.raises(RunError, match="ended with exit code"):
        list(next(of).batches(None, workers))


@pytest.mark.slow
def test_prompts_have_the_columns_of_the_first_ones(tmp_path: Path) -> None:
    write(
        tmp_path,
        [{"prompt": f"{n}", "answer": None if n < 3 else "x" if n == 44 else n} for n in range(50)],
    )
    of, asked = streams(tmp_path, "prompts", skip=True), request(tmp_path, rows="prompts")
    found = []
    with Workers(2, run_of(tmp_path), asked, "drop") as workers:
        for count in (1, 2):
            workers.count = count
            one = next(of)
            answers = [
                made.batch.column("answer") for made in one.batches(None, workers) if made.batch
            ]
            found.append(
                ([value for column in answers for value in column.to_pylist()], one.tally.bad)
            )
    assert found[0] == found[1]
    assert (
        len(found[0][0]) == 49 and "a.jsonl:45: column 'answer' changes its type" in found[0][1][0]
    )


def test_workers_use_the_template_with_the_checkpoints_options(tmp_path: Path) -> None:
    write(tmp_path, [chat(number) for number in range(12)])
    rows = []
    for count in (1, 2):
        run = run_of(tmp_path, workers=count)
        run.use("template", Section(name="qwen", system=f"Ask {'twice. ' * 9}"))
        rows.append(build(run, request(tmp_path, "a.jsonl", max_length=400)).train["input_ids"])
    assert list(rows[0]) == list(rows[1])
    plain = run_of(tmp_path)
    plain.use("template", Section(name="qwen"))
    assert build(plain, request(tmp_path, "a.jsonl", max_length=400)).train["input_ids"] != rows[0]
