"""Format preference: a prompt with a chosen answer and rejected ones."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Preference, Ranked, Row, RowKind, RowsRequest
from tunewright_formats.asking import PROMPTS, Asking, Told, after, said, same_start
from tunewright_formats.fields import PAIRS, bad, describe, number
from tunewright_formats.record_reader import convert_many


class PreferencePairs(Format):
    """Records with `chosen` and `rejected`, each a text, a turn or a list of messages; or with a
    list of several rejected answers, best first, each a text or a list of messages: one row per
    pair, or, for stages that compare them all, one row.

    The prompt is `prompt` (a text or messages), `instruction` with `input` and `history` as in
    alpaca, or `conversations` or `messages`; without any of these it is the common beginning of
    chosen and rejected. Optional: `margin` (a number: how much better), `system`, `tools`,
    `images`, `videos`, `audios`.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("preference", "ranked")

    @staticmethod
    def matches(record: Any) -> bool:
        return isinstance(record, dict) and any(_pair(record, *names) for names in PAIRS)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        asking = Asking(request, ("margin", *(name for names in PAIRS for name in names)))
        is_ranked = request.rows == "ranked"
        return convert_many(
            self, request, asking.reader, lambda record: _convert(record, asking, is_ranked)
        )


def _pair(record: dict[str, Any], better: str, worse: str) -> bool:
    return record.get(better) is not None and record.get(worse) is not None


def _convert(source: Any, asking: Asking, is_ranked: bool) -> list[Preference] | list[Ranked]:
    record, names = asking.reader.read(source), asking.names
    better, worse = next((pair for pair in PAIRS if _pair(record, *pair)), PAIRS[0])
    asking.reader.leave(record, (name for pair in PAIRS if pair[0] != better for name in pair))
    chosen = asking.answer(record[better], names[better])
    first, *rest = (
        asking.answer(value, field) for value, field in _several(record[worse], names[worse])
    )
    prompt, chosen, first = _parted(source, record, asking, chosen, first)
    rejected = [first, *(after(prompt[0], each) for each in rest)]
    for each in rejected:
        if [said(message) for message in chosen[0]] == [said(message) for message in each[0]]:
            bad(names[worse], f"is the same as {names[better]}")
    found = asking.finish(prompt, [chosen, *rejected], record)
    if is_ranked:
        return [Ranked(prompt[0], [each[0] for each in (chosen, *rejected)], found)]
    margin = _margin(record["margin"], names["margin"])
    return [Preference(list(prompt[0]), chosen[0], each[0], found, margin) for each in rejected]


def _several(value: Any, field: str) -> list[tuple[Any, str]]:
    """The rejected answers with their fields: a list of texts or of lists holds several."""
    if isinstance(value, list) and value and all(isinstance(each, str | list) for each in value):
        return [(each, f"{field}[{n}]") for n, each in enumerate(value)]
    return [(value, field)]


def _parted(
    written: dict[str, Any], record: dict[str, Any], asking: Asking, chosen: Told, rejected: Told
) -> tuple[Told, Told, Told]:
    """Split a record into prompt, chosen and rejected."""
    source = asking.source(record)
    whole = all(told[0][0].role != "assistant" for told in (chosen, rejected))
    if source is None and not whole:
        asking.reader.no_prompt(written, PROMPTS)
    if source is not None:
        prompt = asking.prompt(record, source)
        # a text prompt is often the last question of a conversation that both answers contain in
        # full
        if not whole or not isinstance(record[source], str):
            return prompt, after(prompt[0], chosen), after(prompt[0], rejected)
    count = same_start(chosen[0], rejected[0])
    count = min(count, len(chosen[0]) - 1, len(rejected[0]) - 1)
    while count and chosen[0][count - 1].role == "assistant":
        count -= 1
    messages, fields = chosen[0][:count], chosen[1][:count]
    if not messages:
        bad(rejected[1][0], "is another prompt than that of the better answer, expected the same")
    if source is not None and messages[-1].content != prompt[0][-1].content:
        asked = describe(messages[-1].content)
        bad(
            asking.names[source],
            f"found {describe(prompt[0][-1].content)}, and the answers reply to {asked}",
        )
    return (
        (messages, fields),
        (chosen[0][count:], chosen[1][count:]),
        (rejected[0][count:], rejected[1][count:]),
    )


def _margin(value: Any, field: str) -> float | None:
    return None if value is None else number(value, field)
