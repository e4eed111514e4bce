"""Format ranking: a prompt with several ranked answers, together or in pairs."""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from tunewright import Format, PluginOptions, RowError, hookimpl
from tunewright.types import Preference, Ranked, Row, RowKind, RowsRequest
from tunewright_formats.asking import PROMPTS, Asking, Told, after
from tunewright_formats.fields import bad, compared, is_ranked, listing, number
from tunewright_formats.record_reader import convert_many

_NONE = "has no answer that is better than another"


class Ranking(Format):
    """Records with `answers`, a list of texts, turns or lists of messages, best first; or in any
    order with `ranks` (1 is best) or `scores` (highest is best), one number per answer.

    The prompt is `prompt` (a text or messages), `instruction` with `input` and `history`,
    `conversations` or `messages`. Answers of equal rank form no pair. With scores, the margin of a
    pair is their difference. Without ranks or scores the format must be named in the recipe. A
    record gives one row per pair; for stages that compare all answers it gives one row, with the
    first of those of equal rank.
    """

    class Options(PluginOptions):
        pairs: Literal["best", "adjacent"] = "best"
        """Pairs of a ranking. best: the best answer and each worse one. adjacent: each answer and
        the next worse one."""

    rows: ClassVar[tuple[RowKind, ...]] = ("preference", "ranked")

    @staticmethod
    def matches(record: Any) -> bool:
        if not isinstance(record, dict) or not is_ranked(record):
            return False
        return not compared({name: value for name, value in record.items() if name != "answers"})

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        asking = Asking(request, ("answers", "ranks", "scores"), ("answers",))
        pairs = "" if request.rows == "ranked" else self.options.pairs
        return convert_many(
            self, request, asking.reader, lambda record: _convert(record, asking, pairs)
        )


def _convert(source: Any, asking: Asking, pairs: str) -> list[Preference] | list[Ranked]:
    record, names = asking.reader.read(source), asking.names
    written = listing(record["answers"], names["answers"])
    ranks = _ranks(record, asking, len(written))
    column = asking.source(record)
    if column is None:
        asking.reader.no_prompt(source, PROMPTS)
    prompt = asking.prompt(record, column)
    answers = [
        _answer(asking, prompt, item, f"{names['answers']}[{index}]")
        for index, item in enumerate(written)
    ]
    found = asking.finish(prompt, answers, record)
    # stable: answers of equal rank keep their order
    order = sorted(range(len(answers)), key=lambda index: ranks[index])
    if not pairs:
        firsts = [next(n for n in order if ranks[n] == rank) for rank in sorted(set(ranks))]
        if len(firsts) < 2:
            bad(names["answers"], _NONE)
        return [Ranked(prompt[0], [answers[n][0] for n in firsts], found)]
    rows = []
    for better, worse in _pairs(order, ranks, pairs):
        margin = ranks[worse] - ranks[better] if record["scores"] is not None else None
        rows.append(
            Preference(list(prompt[0]), answers[better][0], answers[worse][0], found, margin)
        )
    if not rows:
        bad(names["answers"], _NONE)
    return rows


def _answer(asking: Asking, prompt: Told, item: Any, field: str) -> Told:
    return after(prompt[0], asking.answer(item, field))


def _ranks(record: dict[str, Any], asking: Asking, count: int) -> list[float]:
    """A number per answer; lower is better."""
    given = [name for name in ("ranks", "scores") if record[name] is not None]
    if len(given) > 1:
        bad(asking.names["scores"], "stands beside ranks, expected one of them")
    if not given:
        return list(range(count))
    field = asking.names[given[0]]
    numbers = listing(record[given[0]], field)
    if len(numbers) != count:
        bad(field, f"has {len(numbers)} numbers for {count} answers")
    sign = -1 if given == ["scores"] else 1
    return [sign * number(value, f"{field}[{index}]") for index, value in enumerate(numbers)]


def _pairs(order: list[int], ranks: list[float], pairs: str) -> Iterator[tuple[int, int]]:
    if pairs == "best":
        found: Iterator[tuple[int, int]] = ((order[0], other) for other in order[1:])
    else:
        found = itertools.pairwise(order)
    return (pair for pair in found if ranks[pair[0]] < ranks[pair[1]])
