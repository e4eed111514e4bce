"""Format stepwise: a prompt with the steps of an answer, each labelled."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Row, RowKind, RowsRequest, Stepwise
from tunewright_formats.asking import PROMPTS, Asking
from tunewright_formats.fields import bad, describe, is_flag, is_stepwise, listing, text
from tunewright_formats.record_reader import convert


class LabelledSteps(Format):
    """Records with `completions`, a list of the steps of an answer, and `labels`, true or false (or
    1 or 0) for each step: is it right?

    The prompt is `prompt` (a text or messages), `instruction` with `input` and `history`,
    `conversations` or `messages`. Optional: `system`, `tools`, `images`, `videos`, `audios`.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("stepwise",)

    @staticmethod
    def matches(record: Any) -> bool:
        return isinstance(record, dict) and is_stepwise(record)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        asking = Asking(request, ("completions", "labels"), ("completions", "labels"))
        return convert(self, request, asking.reader, lambda record: _convert(record, asking))


def _convert(source: Any, asking: Asking) -> Stepwise:
    record, names = asking.reader.read(source), asking.names
    steps = [
        text(step, f"{names['completions']}[{n}]")
        for n, step in enumerate(listing(record["completions"], names["completions"]))
    ]
    labels = [
        _label(value, f"{names['labels']}[{n}]")
        for n, value in enumerate(listing(record["labels"], names["labels"]))
    ]
    if len(labels) != len(steps):
        bad(names["labels"], f"has {len(labels)} labels for {len(steps)} steps")
    column = asking.source(record)
    if column is None:
        asking.reader.no_prompt(source, PROMPTS)
    prompt = asking.prompt(record, column)
    found = asking.finish(prompt, [], record)
    return Stepwise(prompt[0], steps, labels, found)


def _label(value: Any, field: str) -> bool:
    if is_flag(value):
        return value if isinstance(value, bool) else value.lower() == "true"
    if value in (0, 1):
        return bool(value)
    bad(field, f"found {describe(value)}, expected true or false")
