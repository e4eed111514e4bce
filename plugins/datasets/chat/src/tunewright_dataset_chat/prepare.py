"""From sources to samples: convert, render, mask, tokenise, fit into max_length. One pass, batch by batch."""

import bisect
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError, RowError
from tunewright.types import Conversation, DataRequest, MediaPart, Rendered, Row, Span, TemplateRequest, Text
from tunewright_dataset_chat.source import Source, rows
from tunewright_hf.tokenise import Tokeniser, check_fit

if TYPE_CHECKING:
    from tunewright.run import Run

IGNORED = -100  # label of a token that is not trained
BATCH = 1000  # rows that are rendered, then tokenised in one call
SHOWN = 5  # bad rows that are named in the notes
UNUSABLE = "cannot be used"
CUT_EMPTY = "nothing to train within max_length"
SPLIT_TOKENS = "tokens crossed the start of an answer and were split there"
PIECES = "rows more, because long documents were split"


@dataclass(slots=True)
class Sample:
    """A row that is ready. labels: -100 where nothing is trained; loss_weights: None where all are 1."""

    origin: str  # file:line
    text: str
    trained: list[Span]  # characters of the text
    input_ids: list[int]  # T token ids; of a cut or split row, a part of the text
    labels: list[int]
    loss_weights: list[float] | None


@dataclass
class Preparation:
    """One pass over the sources of a request, with what has to be said of it afterwards."""

    run: "Run"
    request: DataRequest
    options: Any  # Chat.Options
    read: int = 0  # records
    dropped: Counter[str] = field(default_factory=Counter)  # reason → rows
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.request.rows not in ("text", "messages"):
            problem = f"gives text and messages, the stage needs {self.request.rows}"
            raise RecipeError(problem, place="dataset")
        template = self.run.plugin("template")
        self._tokenizer = self.request.loaded.tokenizer
        if self.request.rows == "messages":
            check_fit(self._tokenizer, template.info, "template")
        self._tokeniser = Tokeniser(self._tokenizer, template.info)
        self._changed: Counter[str] = Counter()  # what was done to rows that were kept
        self._bad: list[str] = []

    def samples(self, sources: list[Source]) -> Iterator[Sample]:
        """The rows of these sources, in order. Raises RowError, RecipeError."""
        for source in sources:
            found = rows(self.run, source, self.request, self._reject)
            while batch := list(itertools.islice(found, BATCH)):
                yield from self._documents(batch) if self.request.rows == "text" else self._chats(batch)
            if not source.records:
                raise RecipeError(f"{source.entry.path} holds no record", place=f"{source.place}.path")
            self.read += source.records
            self.notes.append(source.note)

    def close(self) -> None:
        """Put into words what was changed and left out."""
        self.notes += [f"{count} {what}" for what, count in self._changed.items() if count]
        self.notes += [f"left out: {error}" for error in self._bad]
        if (more := self.dropped[UNUSABLE] - len(self._bad)) > 0:
            self.notes.append(f"left out: {more} more rows that cannot be used")

    def _reject(self, error: RowError) -> None:
        if self.options.on_bad_row == "error":
            skip = "`dataset: {name: chat, on_bad_row: skip}` leaves such rows out"
            raise RowError(error.problem, place=error.place, hint="; ".join(filter(None, [error.hint, skip])))
        self.dropped[UNUSABLE] += 1
        if len(self._bad) < SHOWN:
            self._bad.append(str(error))

    def _chats(self, batch: list[Row]) -> Iterator[Sample]:
        kept: list[tuple[Conversation, Rendered]] = []
        for row in batch:
            assert isinstance(row, Conversation)
            try:
                kept.append((row, self._render(row)))
            except RowError as error:
                self._reject(RowError(error.problem, place=error.place or str(row.origin), hint=error.hint))
        for row, rendered, tokens in self._encoded(kept):
            self._changed[SPLIT_TOKENS] += tokens.split_tokens
            if not _trains(tokens.labels):
                self._reject(RowError("no answer in it is trained", place=str(row.origin)))
            elif (sample := self._fit(row, rendered, tokens)) is not None:
                yield sample

    def _encoded(self, kept: list[tuple[Conversation, Rendered]]) -> Iterator[tuple[Conversation, Rendered, Any]]:
        try:
            found = self._tokeniser.encode_batch([rendered for _, rendered in kept])
        except RowError:  # of which row is known only one by one
            for row, rendered in kept:
                try:
                    tokens = self._tokeniser.encode(rendered)
                except RowError as error:
                    self._reject(RowError(error.problem, place=str(row.origin), hint=error.hint))
                else:
                    yield row, rendered, tokens
        else:
            yield from ((*pair, tokens) for pair, tokens in zip(kept, found, strict=True))

    def _render(self, row: Conversation) -> Rendered:
        for message in row.messages:
            for part in () if isinstance(message.content, str) else message.content:
                if isinstance(part, MediaPart):  # a template may well write a place for it, which nothing would fill
                    raise RowError(f"has {part.kind} {part.path[:40]!r}, and these rows hold text only")
        asked = TemplateRequest(row, special_tokens=self._tokeniser.special_tokens, tokenizer=self._tokenizer)
        rendered: Rendered = self.run.ask("template", "format_template", asked)
        return rendered

    def _fit(self, row: Conversation, rendered: Rendered, tokens: Any) -> Sample | None:
        """The row within max_length, by the policy of `truncate`; None: it is dropped, and counted."""
        size, policy = self.request.max_length, self.options.truncate
        if len(tokens.input_ids) > size:
            if policy == "turns":
                rendered, tokens = self._without_oldest(row, rendered, tokens)
            if policy != "end" and len(tokens.input_ids) > size:
                self.dropped[f"longer than max_length ({size} tokens)"] += 1
                return None
            if not _trains(tokens.labels[:size]):
                self.dropped[CUT_EMPTY] += 1
                return None
            how = "lost their oldest turns" if policy == "turns" else "were cut at their end"
            self._changed[f"rows {how} to fit into {size} tokens"] += 1
        weights = tokens.loss_weights[:size] if tokens.loss_weights else None
        ids, labels = tokens.input_ids[:size], tokens.labels[:size]
        return Sample(str(row.origin), rendered.text, rendered.trained, ids, labels, weights)

    def _without_oldest(self, row: Conversation, rendered: Rendered, tokens: Any) -> tuple[Rendered, Any]:
        """Rendered without as few of the oldest turns as makes the row fit; as it is where nothing does."""
        system = row.messages[: row.messages[0].role == "system"]
        starts = [i for i, message in enumerate(row.messages) if message.role == "user"][1:]

        def attempt(start: int) -> tuple[Rendered, Any]:
            shorter = self._render(dataclasses.replace(row, messages=system + row.messages[start:]))
            return shorter, self._tokeniser.encode(shorter)

        def fits(start: int) -> bool:
            return len(attempt(start)[1].input_ids) <= self.request.max_length

        first = bisect.bisect_left(starts, True, key=fits)
        return attempt(starts[first]) if first < len(starts) else (rendered, tokens)

    def _documents(self, batch: list[Row]) -> Iterator[Sample]:
        """Documents in pieces of max_length tokens; every token stays."""
        documents = [row for row in batch if isinstance(row, Text)]
        encoded = self._tokeniser.encode_text_batch([row.text for row in documents])
        for row, tokens in zip(documents, encoded, strict=True):
            total = len(tokens.input_ids)
            if not _trains(tokens.labels):
                self._reject(RowError("is too short: its only token is predicted from nothing", place=str(row.origin)))
                continue
            edges = [*range(0, total, self.request.max_length), total]
            if len(edges) > 2 and edges[-1] - edges[-2] == 1:  # nothing would stand before a lone token
                edges[-2] -= 1
            self._changed[PIECES] += len(edges) - 2
            for start, end in itertools.pairwise(edges):
                ids, labels = tokens.input_ids[start:end], tokens.labels[start:end]
                yield Sample(str(row.origin), row.text, [Span(0, len(row.text))], ids, labels, None)


def _trains(labels: list[int]) -> bool:
    return any(label != IGNORED for label in labels[1:])  # the first token is predicted from nothing
