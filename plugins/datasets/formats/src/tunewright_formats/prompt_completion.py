"""prompt_completion: a prompt and its completion, each a text or messages."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Conversation, Row, RowKind, RowsRequest
from tunewright_formats.asking import Asking, after
from tunewright_formats.fields import compared, convert


class PromptCompletion(Format):
    """Records with `prompt` and `completion`, each a text or a list of messages, and if you like
    `system`, `tools`, `images`, `videos`, `audios`.

    Only the completion is trained: answers within the prompt weigh 0, unless they have a weight of
    their own.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("messages",)

    @staticmethod
    def matches(record: Any) -> bool:
        if not isinstance(record, dict) or compared(record) or record.get("label") is not None:
            return False
        return all(isinstance(record.get(name), str | list) for name in ("prompt", "completion"))

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        asking = Asking(request, ("completion",), ("prompt", "completion"))
        return convert(self, request, lambda record: _convert(record, asking))


def _convert(source: Any, asking: Asking) -> Conversation:
    record, names = asking.columns.read(source), asking.names
    messages, fields = asking.prompt(record, "prompt")
    answer = after(messages, asking.answer(record["completion"], names["completion"]))
    found = asking.finish((messages, fields), [answer], record)
    for message in messages:
        if message.role == "assistant" and message.weight is None:
            message.weight = 0.0
    return Conversation([*messages, *answer[0]], found)
