"""Format alpaca: instruction, input and output, with earlier turns in history."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from tunewright import Format, PluginOptions, RowError, hookimpl
from tunewright.types import Conversation, Message, Row, RowKind, RowsRequest
from tunewright_formats.conversation import (
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
from tunewright_formats.media import MEDIA_COLUMNS
from tunewright_formats.record_reader import RecordReader, check_names, convert

#: Stanford Alpaca's system prompt for records with an input; its template has the other one.
#: https://github.com/tatsu-lab/stanford_alpaca/blob/main/train.py
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
)
_INPUT = "\n\n### Input:\n"
_BESIDE = ("input", "system", "history", "tools", *REASONING, *MEDIA_COLUMNS)
COLUMNS = ("instruction", "output", *_BESIDE)


class Alpaca(Format):
    """Records with `instruction` and `output`, and optionally `input`, `system`, `history` (pairs
    of question and answer), `tools`, the answer's reasoning in `reasoning_content`, `reasoning` or
    `thinking`, `images`, `videos`, `audios`.
    """

    class Options(PluginOptions):
        input: Literal["line", "section"] = "line"
        """Position of `input` in the prompt. line: on a line after the instruction. section: under
        `### Input:`, with Stanford Alpaca's system prompt for such records; use it with
        `template: alpaca`."""

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
        section = self.options.input == "section"
        return convert(self, request, reader, lambda record: _convert(record, reader, section))


def _convert(source: Any, reader: RecordReader, section: bool) -> Conversation:
    record, names = reader.read(source), reader.names
    if section:
        record = _with_section(record, names)
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


def _with_section(record: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The record with its input under a separate heading in the instruction."""
    given = optional_text(record["input"], names["input"])
    if not given:
        return record
    asked = text(record["instruction"], names["instruction"])
    system = optional_text(record["system"], names["system"]) or WITH_INPUT
    return record | {"instruction": asked + _INPUT + given, "input": None, "system": system}


def question(record: dict[str, Any], names: dict[str, str]) -> tuple[list[Message], list[str]]:
    """History, then instruction and input as the user's message; and the record's field name of
    each message."""
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
