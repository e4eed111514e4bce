"""Format prompt_completion: a prompt and its completion, each a text or messages."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Conversation, Row, RowKind, RowsRequest
from tunewright_formats.asking import PROMPTS, Asking, after
from tunewright_formats.conversation import REASONING, reasoning_column
from tunewright_formats.fields import bad, compared
from tunewright_formats.record_reader import convert


class PromptCompletion(Format):
    """Records with `prompt` and `completion`, each a text or a list of messages, and optionally
    `system`, `tools`, `images`, `videos`, `audios`, and the completion's thinking in
    `reasoning_content`, `reasoning` or `thinking`.

    Only the completion is trained: answers within the prompt have weight 0, unless they have a
    weight of their own.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("messages",)

    @staticmethod
    def matches(record: Any) -> bool:
        if not isinstance(record, dict) or compared(record) or record.get("label") is not None:
            return False
        return all(isinstance(record.get(name), str | list) for name in ("prompt", "completion"))

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        asking = Asking(request, ("completion", *REASONING), ("prompt", "completion"))
        return convert(self, request, asking.reader, lambda record: _convert(record, asking))


def _convert(source: Any, asking: Asking) -> Conversation:
    record, names = asking.reader.read(source), asking.names
    asking.reader.leave(record, (name for name in PROMPTS if name != "prompt"))
    messages, fields = asking.prompt(record, "prompt")
    answer = after(messages, asking.answer(record["completion"], names["completion"]))
    if (thought := reasoning_column(record, asking.reader)) is not None:
        if answer[0][0].reasoning is not None:
            bad(names["completion"], "has thinking, and so has the record; expected one")
        answer[0][0].reasoning = thought
    found = asking.finish((messages, fields), [answer], record)
    for message in messages:
        if message.role == "assistant" and message.weight is None:
            message.weight = 0.0
    return Conversation([*messages, *answer[0]], found)
