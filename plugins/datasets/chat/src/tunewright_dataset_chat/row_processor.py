"""From rows to samples: render, mask, tokenise, fit into max_length. A batch of rows at a time,
nothing is kept."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RowError
from tunewright.types import (
    Conversation,
    MediaPart,
    Rendered,
    RenderedText,
    Row,
    RowKind,
    Span,
    TemplateRequest,
    Text,
)
from tunewright_dataset_chat import pairs, spelling, truncate
from tunewright_dataset_chat.samples import IGNORED, Done, Sample
from tunewright_dataset_chat.surrogates import encodable
from tunewright_hf.tokenization.encode import Encoded, Tokeniser, check_fit

if TYPE_CHECKING:
    from tunewright.run import Run

CUT_EMPTY = "nothing to train within max_length"
SPLIT_TOKENS = "tokens crossed the start of an answer and were split there"
PIECES = "rows more, because long documents were split"

#: of each row: itself, and its text, or why there is none; what was no row is its own reason
Started = list[tuple[Any, Rendered | RowError]]


class RowProcessor:
    """Makes samples of rows, in three steps."""

    def __init__(
        self,
        ask: Callable[[TemplateRequest], Rendered],
        info: Any,  # TemplateInfo
        tokenizer: Any,
        rows: RowKind,
        max_length: int,
        policy: truncate.Policy,
    ) -> None:
        self._ask, self._tokenizer, self.rows = ask, tokenizer, rows
        self._size, self._policy, self._bos = max_length, policy, tokenizer.bos_token_id
        self._tokeniser, self._stop = Tokeniser(tokenizer, info), info.stop

    @classmethod
    def of(
        cls, run: "Run", tokenizer: Any, rows: RowKind, max_length: int, policy: truncate.Policy
    ) -> "RowProcessor":
        """With the run's template. Raises RecipeError where the tokenizer does not fit it."""
        info = run.plugin("template").info
        if rows != "text":
            check_fit(tokenizer, info, "template")

        def ask(asked: TemplateRequest) -> Rendered:
            rendered: Rendered = run.call("template", "format_template", asked)
            return rendered

        return cls(ask, info, tokenizer, rows, max_length, policy)

    def __call__(self, rows: list[Row | RowError]) -> Done:
        """Errors in place of rows are passed on."""
        started = self.start(rows)
        return self.finish(started, self.tokenise(started))

    def start(self, rows: list[Row | RowError]) -> Started:
        """Render the rows. Pairs and prompts are rendered by `finish`, more than one text a row."""
        return [(row, row if isinstance(row, RowError) else self._rendered(row)) for row in rows]

    def tokenise(self, started: Started) -> list[Encoded | RowError]:
        """Tokens of each text that was rendered, in order."""
        texts = [text for _, text in started if isinstance(text, Rendered)]
        if not texts:  # all rows are errors, and some tokenizers take no empty batch
            return []
        documents = (isinstance(row, Text) for row, text in started if isinstance(text, Rendered))
        if next(documents):  # as all rows of a source are
            return list(self._tokeniser.encode_text_batch([text.text for text in texts]))
        if self.rows not in ("text", "messages"):
            return []
        try:
            return list(self._tokeniser.encode_batch(texts))
        except RowError:  # of which row is known only one by one
            return [self._encoded(text) for text in texts]

    def finish(self, started: Started, tokens: list[Encoded | RowError]) -> Done:
        """Fit the rows into max_length, and count what is left out or changed."""
        done = Done()
        if self.rows not in ("text", "messages"):
            self._pairs(started, done)
            return done
        found = iter(tokens)
        for row, rendered in started:
            encoded = rendered if isinstance(rendered, RowError) else next(found)
            if isinstance(encoded, RowError):
                done.errors.append(_placed(encoded, row))
            elif isinstance(row, Text):
                self._document(row, encoded, done)
            else:
                self._chat(row, rendered, encoded, done)
        return done

    def _rendered(self, row: Row) -> Rendered | RowError:
        try:
            if isinstance(row, Conversation):
                return self._render(row)
            if isinstance(row, RenderedText):
                return Rendered(encodable(row.text), [Span(*each) for each in row.trained])
            return Rendered(encodable(row.text) if isinstance(row, Text) else "")
        except RowError as error:
            return error

    def _render(self, row: Conversation, add_generation_prompt: bool = False) -> Rendered:
        for message in row.messages:
            for part in () if isinstance(message.content, str) else message.content:
                # a template may well write a place for it, which nothing would fill
                if isinstance(part, MediaPart):
                    raise RowError(
                        f"has {part.kind} "
                        f"{Path(part.path).name[:40]!r}, and these rows hold text only"
                    )
        special = self._tokeniser.special_tokens
        try:
            found = self._ask(TemplateRequest(row, add_generation_prompt, special, self._tokenizer))
            encodable(found.text)
            return found
        except RecursionError as error:  # of tools, calls or variables
            raise RowError("is nested too deeply") from error

    def _encoded(self, text: Rendered) -> Encoded | RowError:
        try:
            return self._tokeniser.encode_batch([text])[0]
        except RowError as error:
            return error

    def _chat(
        self, row: Conversation | RenderedText, rendered: Any, tokens: Encoded, done: Done
    ) -> None:
        done.changed[SPLIT_TOKENS] += tokens.split_tokens
        if not _trains(tokens.labels):
            done.errors.append(RowError("no answer in it is trained", place=str(row.origin)))
            return
        if isinstance(row, RenderedText):
            notes = spelling.of_rendered(row, tokens, self._tokenizer, self._stop)
        else:
            notes = spelling.of_conversation([rendered], self._tokeniser)
        if len(tokens.input_ids) > self._size:
            found = self._shorter(row, rendered, tokens)
            if found is None:
                done.dropped[self._too_long] += 1
                return
            rendered, tokens = found
            if not _trains(tokens.labels):
                done.dropped[CUT_EMPTY] += 1
                return
            done.changed[self._made_to_fit] += 1
        done.changed.update(notes)
        done.samples.append(_sample(row, _columns(tokens), rendered.text, rendered.trained))

    def _shorter(
        self, row: Conversation | RenderedText, rendered: Rendered, tokens: Encoded
    ) -> tuple[Rendered, Encoded] | None:
        """The row within max_length; None where it is to be dropped."""
        if self._policy == "drop":
            return None
        if self._policy != "turns":
            return Rendered(""), truncate.cut(tokens, self._size, self._policy, self._bos)

        if isinstance(row, RenderedText):  # whose turns are not known
            return None

        def attempt(messages: list[Any]) -> tuple[Rendered, Encoded] | None:
            shorter = self._render(dataclasses.replace(row, messages=messages))
            (encoded,) = self._tokeniser.encode_batch([shorter])
            return (shorter, encoded) if len(encoded.input_ids) <= self._size else None

        return truncate.without_oldest(row.messages, attempt)

    @property
    def _too_long(self) -> str:
        return f"longer than max_length ({self._size} tokens)"

    @property
    def _made_to_fit(self) -> str:
        return f"rows {truncate.DONE[self._policy]} to fit into {self._size} tokens"

    def _document(self, row: Text, tokens: Encoded, done: Done) -> None:
        """A document in pieces of max_length tokens; every token stays."""
        if not _trains(tokens.labels):
            problem = "is too short: its only token is predicted from nothing"
            done.errors.append(RowError(problem, place=str(row.origin)))
            return
        total = len(tokens.input_ids)
        edges = [*range(0, total, self._size), total]
        if len(edges) > 2 and edges[-1] - edges[-2] == 1:  # nothing would stand before a lone token
            edges[-2] -= 1
        done.changed[PIECES] += len(edges) - 2
        text = row.text if len(edges) == 2 else ""
        for start, end in itertools.pairwise(edges):
            piece = Encoded(tokens.input_ids[start:end], tokens.labels[start:end])
            done.samples.append(_sample(row, _columns(piece), text, [Span(0, len(text))]))

    def _pairs(self, started: Started, done: Done) -> None:
        """Rows of a prompt and answers: preference, unpaired, prompts."""
        rows = [row for row, _ in started if not isinstance(row, RowError)]
        texts: dict[str, list[Rendered]] = {}  # by the place of their row

        def render(asked: Conversation, add_generation_prompt: bool) -> Rendered:
            rendered = self._render(asked, add_generation_prompt)
            texts.setdefault(str(asked.origin), []).append(rendered)
            return rendered

        encoded = iter(pairs.encode_rows(rows, render, self._tokeniser))
        for row, _ in started:
            columns: Any = row if isinstance(row, RowError) else next(encoded)
            if isinstance(columns, RowError):
                done.errors.append(columns)
                continue
            if truncate.pair_length(columns) > self._size:
                columns = self._shorter_pair(row, columns)
                if columns is None:
                    done.dropped[self._too_long] += 1
                    continue
                done.changed[self._made_to_fit] += 1
            of_row = texts.get(str(row.origin), ())
            done.changed.update(spelling.of_conversation(of_row, self._tokeniser))
            done.samples.append(_sample(row, columns))

    def _shorter_pair(self, row: Row, columns: dict[str, Any]) -> dict[str, Any] | None:
        if self._policy != "turns":
            return (
                None
                if self._policy == "drop"
                else truncate.cut_pair(columns, self._size, self._policy, self._bos)
            )

        def attempt(messages: list[Any]) -> dict[str, Any] | None:
            (found,) = pairs.encode_rows(
                [truncate.with_prompt(row, messages)], self._render, self._tokeniser
            )
            if isinstance(found, dict) and truncate.pair_length(found) <= self._size:
                return found
            return None

        return truncate.without_oldest(truncate.prompt_of(row), attempt)


def _placed(error: RowError, row: Row | RowError) -> RowError:
    if error.place or isinstance(row, RowError):
        return error
    return RowError(error.problem, place=str(row.origin), hint=error.hint)


def _sample(
    row: Row, columns: dict[str, Any], text: str = "", trained: list[Span] | None = None
) -> Sample:
    return Sample(
        str(row.origin), row.origin.line if row.origin else None, columns, text, trained or []
    )


def _columns(tokens: Encoded) -> dict[str, Any]:
    return {
        "input_ids": tokens.input_ids,
        "labels": tokens.labels,
        "loss_weights": tokens.loss_weights,
    }


def _trains(labels: Sequence[int]) -> bool:
    """Whether a token but the first, which is predicted from nothing, is trained: mostly the last
    ones are."""
    return any(label != IGNORED for label in reversed(labels[1:]))
