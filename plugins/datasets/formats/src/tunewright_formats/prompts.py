"""Format prompts: prompts without answers, for stages that generate."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Prompt, Row, RowKind, RowsRequest
from tunewright_formats.asking import COLUMNS, PROMPTS, Asking
from tunewright_formats.fields import compared, is_turns, unanswered
from tunewright_formats.media import media_columns
from tunewright_formats.record_reader import convert

_ANSWERS = ("completion", "output")


class Prompts(Format):
    """Records with `prompt` (a text or messages), `instruction` with `input` and `history`, or
    `conversations` or `messages` that end with the user, and optionally `system`, `tools`,
    `images`, `videos`, `audios`.

    All other columns are kept for the reward functions, such as the correct answer; `columns` can
    rename them, such as {answer: solution}.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("prompts",)

    @staticmethod
    def matches(record: Any) -> bool:
        if not isinstance(record, dict) or compared(record):
            return False
        if any(record.get(name) is not None for name in _ANSWERS):
            return False
        turns = ((record.get("messages"), "role"), (record.get("conversations"), "from"))
        found = [(value, key) for value, key in turns if value is not None]
        if found:
            return all(is_turns(value, key) and unanswered(value, key) for value, key in found)
        prompt = record.get("prompt")
        asked = isinstance(prompt, str) or (
            bool(prompt) and (is_turns(prompt, "role") or is_turns(prompt, "from"))
        )
        return asked or isinstance(record.get("instruction"), str)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        asking = Asking(request, (), keeps_rest=True)
        return convert(self, request, asking.reader, lambda record: _convert(record, asking))


def _convert(source: Any, asking: Asking) -> Prompt:
    record, names = asking.reader.read(source), asking.names
    column = asking.source(record)
    if column is None:
        asking.reader.no_prompt(source, PROMPTS)
    prompt = asking.prompt(record, column)
    found = asking.finish(prompt, [], record)
    used = {column, "system", "tools", *media_columns(record, asking.reader)}
    if column == "instruction":
        used |= {"input", "history"}
    if found and not record["tools"]:
        used.add("functions")
    taken = {names[name] for name in used if record[name] is not None}
    renamed = {names[name]: name for name in names if name not in COLUMNS}
    columns = {
        renamed.get(name, name): value for name, value in source.items() if name not in taken
    }
    return Prompt(prompt[0], found, columns)
