"""Rows that are ready for training, and what became of the others."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tunewright import RowError
from tunewright.types import Span
from tunewright_dataset_chat.unread import Unread

IGNORED = -100  # label of a token that is not trained

_WHOLE = ("prompt_ids", "chosen_ids", "completion_ids")


@dataclass(slots=True)
class Sample:
    """A row that is ready. columns: as `types.Data` names them, T token ids in each."""

    origin: str  # file:line
    line: int | None
    columns: dict[str, Any]
    #: that was rendered; none of rows that were cut or split, and of prompts and answers
    text: str = ""
    trained: list[Span] = field(default_factory=list)  # characters of the text

    @property
    def input_ids(self) -> list[int]:
        """All T tokens; of a preference those of the prompt and the answer that was chosen."""
        if "input_ids" in self.columns:
            return list(self.columns["input_ids"])
        return [token for name in _WHOLE for token in self.columns.get(name, ())]

    @property
    def labels(self) -> list[int]:
        if "labels" in self.columns:
            return list(self.columns["labels"])
        prompt = self.columns["prompt_ids"]
        return [IGNORED] * len(prompt) + self.input_ids[len(prompt) :]


@dataclass(slots=True)
class Done:
    """What became of a batch of rows."""

    samples: list[Sample] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)  # rows that cannot be used, in order
    dropped: Counter[str] = field(default_factory=Counter)  # reason → rows
    #: what was done to rows that were kept → rows
    changed: Counter[str] = field(default_factory=Counter)
    unread: Unread = field(default_factory=Unread)  # of the records
