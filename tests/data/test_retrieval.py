"""Format retrieval, and its texts as token ids."""

from pathlib import Path
from typing import Any

import pytest

from data.converting import convert_all, matching, problem
from data.running import chat_run, request
from tunewright import RecipeError, RowError
from tunewright.types import Embedding, Origin, Retrieval
from tunewright_dataset_chat.row_processor import RowProcessor


def test_a_positive_each_is_a_row_with_all_negatives() -> None:
    record = {"query": "q", "positive": ["a", "b", "a"], "negative": "c"}
    found = convert_all("retrieval", record)
    origin = Origin("a.jsonl", 7)
    assert found == [
        Retrieval("q", "a", ["c"], origin=origin),
        Retrieval("q", "b", ["c"], origin=origin),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"anchor": "q", "positive": "a", "negative": ["c"]},
        {"query": "q", "pos": ["a"], "neg": ["c"]},
        {"query": "q", "positives": ["a"], "negatives": ["c"]},
    ],
)
def test_usual_names(record: dict[str, Any]) -> None:
    assert matching(record) == ["retrieval"]
    (row,) = convert_all("retrieval", record)
    assert isinstance(row, Retrieval)
    assert (row.query, row.positive, row.negatives) == ("q", "a", ["c"])


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"positive": "a"}, "query: is missing, expected text in query or anchor"),
        ({"query": "q"}, "positive: is missing"),
        ({"query": ["q"], "positive": "a"}, "query: found a list, expected text"),
        ({"query": "q", "positive": []}, "positive: is empty"),
        ({"query": "q", "positive": ["a", " "]}, "positive[1]: is empty"),
        ({"query": "q", "positive": "a", "neg": ["a"]}, "neg: has a document that is among"),
    ],
)
def test_problems_name_the_column(record: dict[str, Any], said: str) -> None:
    assert problem("retrieval", record).startswith(said)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return request(tmp_path, rows="retrieval").loaded.tokenizer


def processor(
    tmp_path: Path, size: int, policy: Any = "end", embedding: Embedding | None = None
) -> RowProcessor:
    made = request(tmp_path, rows="retrieval")
    tokenizer = made.loaded.tokenizer
    return RowProcessor.of(
        chat_run(tmp_path), tokenizer, "retrieval", size, policy, None, embedding
    )


def test_texts_are_encoded_as_they_are_with_their_prompts(tmp_path: Path, tokenizer: Any) -> None:
    row = Retrieval("hello there", "a nest", ["a wren", "b"], origin=Origin("a.jsonl", 1))
    work = processor(tmp_path, 99, embedding=Embedding(query_prompt="Q: ", document_prompt="D: "))
    done = work([row])
    (sample,) = done.samples
    texts = ["Q: hello there", "D: a nest", "D: a wren", "D: b"]
    expected = [tokenizer(text)["input_ids"] for text in texts]
    assert sample.columns == {"query_ids": expected[0], "document_ids": expected[1:]}
    assert sample.input_ids == [token for ids in expected for token in ids]


def test_long_texts_are_cut_or_the_row_is_dropped(tmp_path: Path, tokenizer: Any) -> None:
    long = "wren " * 40
    rows = [
        Retrieval(long, "a", origin=Origin("a.jsonl", 1)),
        Retrieval("a", "b", [long], origin=Origin("a.jsonl", 2)),
        Retrieval("a", "b", origin=Origin("a.jsonl", 3)),
    ]
    done = processor(tmp_path, 12)([*rows])
    cut = tokenizer(long, truncation=True, max_length=12)["input_ids"]
    assert done.samples[0].columns["query_ids"] == cut
    assert len(cut) == 12
    assert done.samples[1].columns["document_ids"][1] == cut
    assert done.changed.total() == 2
    done = processor(tmp_path, 12, "drop")([*rows])
    assert [sample.line for sample in done.samples] == [3]
    assert done.dropped.total() == 2


def test_a_text_that_is_no_unicode_is_the_row_s_error(tmp_path: Path) -> None:
    bad = Retrieval("a", "b\ud83d", origin=Origin("a.jsonl", 1))
    good = Retrieval("a", "b", origin=Origin("a.jsonl", 2))
    done = processor(tmp_path, 12)([bad, RowError("x", place="a.jsonl:9"), good])
    assert [error.place for error in done.errors] == ["a.jsonl:1", "a.jsonl:9"]
    assert [sample.line for sample in done.samples] == [2]


def test_other_ways_of_cutting_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"dataset\.truncate: is turns, and such texts"):
        processor(tmp_path, 12, "turns")


# ---- pairs of a reranker -------------------------------------------------------------------------

PAIR = Embedding(pair_prompt="Q: {query}\nD: {document}\nR:")


def test_a_query_with_each_document_is_one_text(tmp_path: Path, tokenizer: Any) -> None:
    row = Retrieval("hello there", "a {query} nest", ["a wren"], origin=Origin("a.jsonl", 1))
    (sample,) = processor(tmp_path, 99, embedding=PAIR)([row]).samples
    texts = ["Q: hello there\nD: a {query} nest\nR:", "Q: hello there\nD: a wren\nR:"]
    expected = [tokenizer(text)["input_ids"] for text in texts]
    assert sample.columns == {"query_ids": [], "document_ids": expected}


def test_of_a_long_pair_the_document_is_cut(tmp_path: Path, tokenizer: Any) -> None:
    long = "a wren sings " * 30
    rows = [
        Retrieval("hello", long, ["b"], origin=Origin("a.jsonl", 1)),
        Retrieval(long, "b", ["c"], origin=Origin("a.jsonl", 2)),
    ]
    done = processor(tmp_path, 30, embedding=PAIR)([*rows])
    (sample,) = done.samples
    ids = sample.columns["document_ids"][0]
    assert len(ids) <= 30
    text = tokenizer.decode(ids)
    assert text.endswith("\nR:")
    assert "Q: hello\nD: a wren sings a w" in text
    (error,) = done.errors
    assert error.problem == "query: leaves no room for a document in 30 tokens"
    done = processor(tmp_path, 30, "drop", PAIR)([*rows])
    assert (len(done.samples), done.dropped.total()) == (0, 2)
