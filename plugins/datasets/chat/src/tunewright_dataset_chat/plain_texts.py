"""Tokenise the texts of retrieval and labelled rows as sentence-transformers and transformers'
pipelines do: with the special tokens that the tokenizer adds, and without a template."""

from collections.abc import Iterator, Sequence
from typing import Any

from tunewright import RecipeError, RowError
from tunewright.types import Embedding, Labelled, Retrieval
from tunewright_dataset_chat.surrogates import encodable
from tunewright_dataset_chat.truncate import Policy


def check_policy(policy: Policy) -> None:
    """Raise RecipeError unless such rows can be cut so."""
    if policy not in ("drop", "end"):
        problem = f"is {policy}, and such texts are cut at their end"
        raise RecipeError(problem, place="dataset.truncate", hint="take end, or drop")


def encode_rows(
    rows: Sequence[Retrieval | Labelled],
    tokenizer: Any,
    max_length: int,
    embedding: Embedding,
    policy: Policy = "end",
) -> Iterator[tuple[dict[str, Any], bool] | RowError]:
    """For each row, in order: its columns as `types.Data` names them, and whether a text was longer
    than max_length tokens, and is cut unless the policy is to drop such rows; or the error."""
    texts = [_texts(row, embedding) for row in rows]
    every = [text for found in texts if not isinstance(found, RowError) for text in found]
    whole = tokenizer(every, verbose=False)["input_ids"] if every else []
    at = 0
    for row, found in zip(rows, texts, strict=True):
        if isinstance(found, RowError):
            yield found
            continue
        own = whole[at : at + len(found)]
        at += len(found)
        long = [n for n, ids in enumerate(own) if len(ids) > max_length]
        try:
            for n in long if policy == "end" else ():
                own[n] = _shorter(row, n, found[n], tokenizer, max_length, embedding)
        except RowError as error:
            yield error
            continue
        yield _columns(row, own, embedding), bool(long)


def _columns(
    row: Retrieval | Labelled, ids: list[list[int]], embedding: Embedding
) -> dict[str, Any]:
    if isinstance(row, Labelled):
        return {"input_ids": ids[0], "names": row.labels, "value": row.value}
    if embedding.pair_prompt:
        return {"query_ids": [], "document_ids": ids}
    return {"query_ids": ids[0], "document_ids": ids[1:]}


def _texts(row: Retrieval | Labelled, embedding: Embedding) -> list[str] | RowError:
    try:
        if isinstance(row, Labelled):
            return [encodable(row.text)]
        documents = [row.positive, *row.negatives]
        if embedding.pair_prompt:
            return [encodable(embedding.pair(row.query, text)) for text in documents]
        return [
            encodable(embedding.query_prompt + row.query),
            *(encodable(embedding.document_prompt + text) for text in documents),
        ]
    except RowError as error:
        return error


def _shorter(
    row: Retrieval | Labelled,
    number: int,
    text: str,
    tokenizer: Any,
    max_length: int,
    embedding: Embedding,
) -> list[int]:
    """Text `number` of a row within max_length. Of a pair the document is cut: what the prompt has
    after it stays. Raises RowError where the query leaves no room."""
    if isinstance(row, Labelled) or not embedding.pair_prompt:
        # what the tokenizer adds at the end stays
        cut: list[int] = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        return cut
    document = [row.positive, *row.negatives][number]
    found = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)
    keep, ids = len(found["offset_mapping"]), tokenizer(text, verbose=False)["input_ids"]
    while (excess := len(ids) - max_length) > 0:
        keep -= excess
        if keep < 1:
            raise RowError(f"query: leaves no room for a document in {max_length} tokens")
        end = found["offset_mapping"][keep - 1][1]
        ids = tokenizer(embedding.pair(row.query, document[:end]), verbose=False)["input_ids"]
    return list(ids)
