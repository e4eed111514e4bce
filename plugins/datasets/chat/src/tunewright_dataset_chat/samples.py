"""Samples: tokenised rows ready for training, and counts of the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright import RowError
from tunewright.types import Row, Span
from tunewright_dataset_chat.unread import Unread
from tunewright_hf.tokenization.encode import Encoded

IGNORED = -100  # label of a token that is not trained

_WHOLE = ("prompt_ids", "chosen_ids", "completion_ids")


@dataclass(frozen=True, slots=True)
class SeenMedium:
    """A medium of a row. shape: a tunewright_hf.media.shapes.Shape."""

    kind: str
    path: str
    shape: Any
    tokens: int  # that it takes


@dataclass(slots=True)
class Sample:
    """A tokenised row. columns: as `types.Data` names them, T token ids each."""

    origin: str  # file:line
    line: int | None
    columns: dict[str, Any]
    #: rendered text; empty for rows that were cut or split, and for prompts with answers
    text: str = ""
    trained: list[Span] = field(default_factory=list)  # character spans of the text
    media: list[SeenMedium] = field(default_factory=list)  # of the text, or of the prompt
    order: float | None = None  # of the record, where examples are ordered by a column

    @property
    def input_ids(self) -> list[int]:
        """All T tokens; for preference rows the prompt with the chosen answer, for retrieval rows
        the query and its documents."""
        if "input_ids" in self.columns:
            return list(self.columns["input_ids"])
        if "query_ids" in self.columns:
            texts = (self.columns["query_ids"], *self.columns["document_ids"])
            return [token for text in texts for token in text]
        if "answer_ids" in self.columns:  # the best
            return [*self.columns["prompt_ids"], *self.columns["answer_ids"][0]]
        return [token for name in _WHOLE for token in self.columns.get(name, ())]

    @property
    def labels(self) -> list[int]:
        if "labels" in self.columns:
            return list(self.columns["labels"])
        if "prompt_ids" not in self.columns:  # all of it is used
            return self.input_ids
        prompt = self.columns["prompt_ids"]
        return [IGNORED] * len(prompt) + self.input_ids[len(prompt) :]


@dataclass(slots=True)
class Done:
    """Result of a batch of rows."""

    samples: list[Sample] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)  # rows that cannot be used, in order
    dropped: Counter[str] = field(default_factory=Counter)  # reason → rows
    #: how kept rows were changed → rows
    changed: Counter[str] = field(default_factory=Counter)
    unread: Unread = field(default_factory=Unread)  # of the records


def placed(error: RowError, row: Row | RowError) -> RowError:
    """The error with the place of its row."""
    if error.place or isinstance(row, RowError):
        return error
    return RowError(error.problem, place=str(row.origin), hint=error.hint)


def columns_of(tokens: Encoded) -> dict[str, Any]:
    """Columns of a row of one text."""
    return {
        "input_ids": tokens.input_ids,
        "labels": tokens.labels,
        "loss_weights": tokens.loss_weights,
    }


def trains(labels: Sequence[int]) -> bool:
    """Whether a token is trained, other than the first, which is never predicted. Checks from the
    end, where it is most likely."""
    return any(label != IGNORED for label in reversed(labels[1:]))
