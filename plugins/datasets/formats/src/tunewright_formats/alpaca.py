"""alpaca: one record with instruction, input and output, and the exchanges before it in history."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Conversation, Message, Row, RowKind, RowsRequest
from tunewright_formats.conversation import (
    MEDIA_COLUMNS,
    REASONING,
    conversation,
    reasoning_column,
)
from tunewright_formats.fields import (
    bad,
    compared,
    describe,
    listing,
    optional_text,
    text,
)
from tunewright_formats.record_reader import RecordReader, check_names, convert

_BESIDE = ("input", "system", "history", "tools", *REASONING, *MEDIA_COLUMNS)
COLUMNS = ("instruction", "output", *_BESIDE)


class Alpaca(Format):
    """Records with `instruction` and `output`, and if you like `input` (joined to the instruction
    by a line break), `system`, `history` (pairs of question and answer), `tools`, the answer's
    thinking in `reasoning_content`, `reasoning` or `thinking`, `images`, `videos`, `audios`.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("messages",)

    @staticmethod
    def matches(record: Any) -> bool:
        return (
            isinstance(record, dict)
            and "instruction" in record
            and "output" in record
            and not compared(record)
        )

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        reader = RecordReader(request, COLUMNS, ("instruction", "output"))
        check_names(request.tags, (), "tags")
        return convert(self, request, reader, lambda record: _convert(record, reader))


def _convert(source: Any, reader: RecordReader) -> Conversation:
    record, names = reader.read(source), reader.names
    messages, fields = question(record, names)
    if isinstance(record["output"], list):
        bad(
            names["output"],
            "found a list, expected text",
            "`format: ranking` reads lists of answers, the best first",
        )
    answer = text(record["output"], names["output"])
    messages.append(Message("assistant", answer, reasoning_column(record, reader)))
    fields.append(names["output"])
    return conversation(messages, fields, record, reader)


def question(record: dict[str, Any], names: dict[str, str]) -> tuple[list[Message], list[str]]:
    """History, then instruction and input as the user's message; with what the record calls each
    message."""
    messages: list[Message] = []
    fields: list[str] = []
    history = record["history"] or []
    for index, pair in enumerate(listing(history, names["history"]) if history else []):
        at = f"{names['history']}[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            bad(at, f"found {describe(pair)}, expected a question and an answer")
        messages += [
            Message("user", text(pair[0], f"{at}[0]")),
            Message("assistant", text(pair[1], f"{at}[1]")),
        ]
        fields += [f"{at}[0]", f"{at}[1]"]
    parts = [optional_text(record[name], names[name]) for name in ("instruction", "input")]
    asked = text("\n".join(part for part in parts if part), names["instruction"])
    return [*messages, Message("user", asked)], [*fields, names["instruction"]]
