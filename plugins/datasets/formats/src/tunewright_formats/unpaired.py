"""Format unpaired: a prompt with one answer labelled good or bad."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Row, RowKind, RowsRequest, Unpaired
from tunewright_formats.asking import PROMPTS, Asking, Told, after, split
from tunewright_formats.fields import PAIRS, bad, describe, is_flag, is_ranked, label
from tunewright_formats.record_reader import convert

_ANSWERS = ("completion", "output")
_LABELS = ("label", "kto_tag")


class UnpairedAnswers(Format):
    """Records with `label` (or `kto_tag`): true if the answer is good, false if it is bad.

    Prompt and answer are `prompt` and `completion`, `instruction` (with `input`, `history`) and
    `output`, or a conversation in `conversations` or `messages` whose last answer is labelled.
    Optional: `system`, `tools`, `images`, `videos`, `audios`.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("unpaired",)

    @staticmethod
    def matches(record: Any) -> bool:
        if not isinstance(record, dict) or is_ranked(record):
            return False
        if any(
            record.get(better) is not None and record.get(worse) is not None
            for better, worse in PAIRS
        ):
            return False
        completed = record.get("prompt") is not None and record.get("completion") is not None
        if completed and record.get("label") is not None:
            return True
        answered = any(
            record.get(name) is not None for name in ("output", "conversations", "messages")
        )
        return label(record) is not None and (completed or answered)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        asking = Asking(request, (*_ANSWERS, *_LABELS))
        return convert(self, request, asking.reader, lambda record: _convert(record, asking))


def _convert(source: Any, asking: Asking) -> Unpaired:
    record = asking.reader.read(source)
    good = _label(record, asking)
    prompt, answer = _parted(source, record, asking)
    found = asking.finish(prompt, [answer], record)
    return Unpaired(prompt[0], answer[0], good, found)


def _label(record: dict[str, Any], asking: Asking) -> bool:
    column = asking.reader.first(record, _LABELS)
    if column is None:
        bad(asking.names["label"], "is missing, expected true or false")
    value = record[column]
    if not is_flag(value):
        bad(asking.names[column], f"found {describe(value)}, expected true or false")
    return value if isinstance(value, bool) else value.lower() == "true"


def _parted(written: dict[str, Any], record: dict[str, Any], asking: Asking) -> tuple[Told, Told]:
    source = asking.source(record)
    column = asking.reader.first(record, _ANSWERS)
    if column is not None and source not in asking.reader.renamed & {"conversations", "messages"}:
        answer = asking.answer(record[column], asking.names[column])
        if source is None and answer[0][0].role != "assistant":
            return split(answer)
        if source is None:
            asking.reader.no_prompt(written, PROMPTS)
        prompt = asking.prompt(record, source)
        return prompt, after(prompt[0], answer)
    if source not in ("conversations", "messages"):
        bad(
            asking.names["completion"],
            "is missing, expected an answer in completion, output or a conversation",
        )
    asking.reader.leave(record, _ANSWERS)
    return split(asking.prompt(record, source))
