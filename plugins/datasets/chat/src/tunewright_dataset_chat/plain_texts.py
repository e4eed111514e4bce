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
    rows: Sequence[Retrieval | Labelled], tokenizer: Any, max_length: int, embedding: Embedding
) -> Iterator[tuple[dict[str, Any], bool] | RowError]:
    """For each row, in order: its columns as `types.Data` names them, and whether a text was cut at
    its end; or the error. max_length: tokens of each text."""
    texts = [_texts(row, embedding) for row in rows]
    every = [text for found in texts if not isinstance(found, RowError) for text in found]
    whole = tokenizer(every, verbose=False)["input_ids"] if every else []
    # those that are cut keep what the tokenizer adds at their end
    cut = [n for n, ids in enumerate(whole) if len(ids) > max_length]
    if cut:
        shorter = tokenizer([every[n] for n in cut], truncation=True, max_length=max_length)
        for n, ids in zip(cut, shorter["input_ids"], strict=True):
            whole[n] = ids
    at, is_cut = 0, set(cut)
    for row, found in zip(rows, texts, strict=True):
        if isinstance(found, RowError):
            yield found
            continue
        own = range(at, at + len(found))
        at = own.stop
        yield _columns(row, [whole[n] for n in own]), not is_cut.isdisjoint(own)


def _columns(row: Retrieval | Labelled, ids: list[list[int]]) -> dict[str, Any]:
    if isinstance(row, Labelled):
        return {"input_ids": ids[0], "names": row.labels, "value": row.value}
    return {"query_ids": ids[0], "document_ids": ids[1:]}


def _texts(row: Retrieval | Labelled, embedding: Embedding) -> list[str] | RowError:
    try:
        if isinstance(row, Labelled):
            return [encodable(row.text)]
        return [
            encodable(embedding.query_prompt + row.query),
            *(
                encodable(embedding.document_prompt + text)
                for text in (row.positive, *row.negatives)
            ),
        ]
    except RowError as error:
        return error
