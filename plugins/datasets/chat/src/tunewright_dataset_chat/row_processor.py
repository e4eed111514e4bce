"""Process rows to samples: render, mask, tokenise, fit to max_length. Stateless between batches."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tunewright import RowError
from tunewright.types import (
    Conversation,
    Embedding,
    Rendered,
    RenderedText,
    Row,
    RowKind,
    RunContext,
    Span,
    TemplateRequest,
    Text,
)
from tunewright_dataset_chat import media, pairs, plain_texts, spelling, truncate
from tunewright_dataset_chat.columns import MEDIA
from tunewright_dataset_chat.row_media import RowMedia
from tunewright_dataset_chat.samples import Done, Sample, columns_of, placed, trains
from tunewright_dataset_chat.surrogates import encodable
from tunewright_hf.tokenization.encode import Encoded, Tokeniser, check_fit

CUT_EMPTY = "nothing to train within max_length"
SPLIT_TOKENS = "tokens that crossed the start of an answer and were split there"
PIECES = "further rows, because long documents were split"

#: a row with its text or error; an item that was an error is its own error
Started = list[tuple[Any, Rendered | RowError]]


class RowProcessor:
    """Turns rows into samples, in three steps."""

    def __init__(
        self,
        ask: Callable[[TemplateRequest], Rendered],
        info: Any,  # TemplateInfo
        tokenizer: Any,
        rows: RowKind,
        max_length: int,
        policy: truncate.Policy,
        processor: Any = None,  # of a model that takes media
        embedding: Embedding | None = None,  # its prompts stand before the texts of retrieval rows
    ) -> None:
        self._ask, self._tokenizer, self.rows = ask, tokenizer, rows
        self._size, self._policy, self._bos = max_length, policy, tokenizer.bos_token_id
        self._tokeniser, self._stop = Tokeniser(tokenizer, info), info.stop
        self._media = RowMedia(processor, tokenizer, info, self._written)
        self.takes_media = processor is not None
        self._folders, self._embedding = media.NO_FOLDERS, embedding or Embedding()

    @classmethod
    def of(
        cls,
        run: RunContext,
        tokenizer: Any,
        rows: RowKind,
        max_length: int,
        policy: truncate.Policy,
        processor: Any = None,
        embedding: Embedding | None = None,
    ) -> "RowProcessor":
        """Create a processor with the run's template. Raises RecipeError if the tokenizer does not
        fit it, or the policy the rows."""
        info = run.plugin("template").info
        if rows in ("retrieval", "labelled"):
            plain_texts.check_policy(policy)
        elif rows != "text":
            check_fit(tokenizer, info, "template")

        def ask(asked: TemplateRequest) -> Rendered:
            rendered: Rendered = run.call("template", "format_template", asked)
            return rendered

        return cls(ask, info, tokenizer, rows, max_length, policy, processor, embedding)

    def __call__(
        self, rows: list[Row | RowError], folders: media.Folders = media.NO_FOLDERS
    ) -> Done:
        """Process rows; errors are passed on. folders: of their media."""
        self._folders = folders
        started = self.start(rows)
        return self.finish(started, self.tokenise(started))

    def start(self, rows: list[Row | RowError]) -> Started:
        """Render the rows. Those with several texts are rendered by `finish`."""
        return [(row, row if isinstance(row, RowError) else self._rendered(row)) for row in rows]

    def tokenise(self, started: Started) -> list[Encoded | RowError]:
        """Tokenise each rendered text, in order."""
        found = [(row, text) for row, text in started if isinstance(text, Rendered)]
        if not found:  # all rows are errors; some tokenizers reject empty batches
            return []
        texts = [text for _, text in found]
        if isinstance(found[0][0], Text):  # then all rows of the source are
            plain = [text.text for text in texts if not text.media]
            encoded = iter(self._tokeniser.encode_text_batch(plain) if plain else ())
            return [self._encoded(text) if text.media else next(encoded) for text in texts]
        if self.rows not in ("text", "messages"):
            return []
        try:
            return list(self._tokeniser.encode_batch(texts))
        except RowError:  # find the failing row by encoding one at a time
            return [self._encoded(text) for text in texts]

    def finish(self, started: Started, tokens: list[Encoded | RowError]) -> Done:
        """Fit the rows to max_length, and count dropped and changed ones."""
        done = Done()
        if self.rows not in ("text", "messages"):
            (self._plain if self.rows in ("retrieval", "labelled") else self._pairs)(started, done)
            return done
        found = iter(tokens)
        for row, rendered in started:
            encoded = rendered if isinstance(rendered, RowError) else next(found)
            if isinstance(encoded, RowError):
                done.errors.append(placed(encoded, row))
            elif isinstance(row, Text):
                self._document(row, rendered, encoded, done)
            else:
                self._chat(row, rendered, encoded, done)
        return done

    def _rendered(self, row: Row) -> Rendered | RowError:
        try:
            self._media.check(row)
            if isinstance(row, Conversation):
                return self._render(row)
            if isinstance(row, RenderedText):
                return Rendered(encodable(row.text), [Span(*each) for each in row.trained])
            if not isinstance(row, Text):
                return Rendered("")
            if not isinstance(row.text, str):
                found = self._media.document(row)
                encodable(found.text)
                return found
            return Rendered(encodable(row.text))
        except RowError as error:
            return error

    def _render(self, row: Conversation, add_generation_prompt: bool = False) -> Rendered:
        """The conversation with the tokens of its media."""
        return self._media.expand(self._written(row, add_generation_prompt), row.messages)

    def _written(self, row: Conversation, add_generation_prompt: bool = False) -> Rendered:
        special = self._tokeniser.special_tokens
        try:
            found = self._ask(TemplateRequest(row, add_generation_prompt, special, self._tokenizer))
            encodable(found.text)
            return found
        except RecursionError as error:  # of nested tools, calls or variables
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
        if not trains(tokens.labels):
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
            row, rendered, tokens = found
            if not trains(tokens.labels):
                done.dropped[CUT_EMPTY] += 1
                return
            done.changed[self._made_to_fit] += 1
        done.changed.update(notes)
        done.samples.append(self._sample(row, columns_of(tokens), rendered))

    def _shorter(
        self, row: Conversation | RenderedText, rendered: Rendered, tokens: Encoded
    ) -> tuple[Conversation | RenderedText, Rendered, Encoded] | None:
        """The row within max_length, with its remaining messages; None if it is to be dropped.
        Nothing is cut through a medium."""
        if self._policy == "drop" or (rendered.media and self._policy != "turns"):
            return None
        if self._policy != "turns":
            cut = truncate.cut(tokens, self._size, self._policy, self._bos)
            return row, Rendered(""), cut
        if isinstance(row, RenderedText):  # its turns are unknown
            return None

        def attempt(messages: list[Any]) -> tuple[Conversation, Rendered, Encoded] | None:
            fewer = dataclasses.replace(row, messages=messages)
            shorter = self._render(fewer)
            (encoded,) = self._tokeniser.encode_batch([shorter])
            return (fewer, shorter, encoded) if len(encoded.input_ids) <= self._size else None

        return truncate.without_oldest(row.messages, attempt)

    @property
    def _too_long(self) -> str:
        return f"longer than max_length ({self._size} tokens)"

    @property
    def _made_to_fit(self) -> str:
        return f"rows that {truncate.DONE[self._policy]} to fit into {self._size} tokens"

    def _document(self, row: Text, rendered: Any, tokens: Encoded, done: Done) -> None:
        """Split a document into pieces of max_length tokens; no token is dropped. One with media is
        not split."""
        if not trains(tokens.labels):
            problem = "is too short: its only token is predicted from nothing"
            done.errors.append(RowError(problem, place=str(row.origin)))
            return
        if rendered.media and len(tokens.input_ids) > self._size:
            done.dropped[self._too_long] += 1
            return
        pieces = truncate.pieces(tokens, self._size)
        done.changed[PIECES] += len(pieces) - 1
        text = rendered.text if len(pieces) == 1 else ""
        trained = rendered.trained if rendered.media else [Span(0, len(text))]
        shown = dataclasses.replace(rendered, text=text, trained=trained)
        done.samples += [self._sample(row, columns_of(piece), shown) for piece in pieces]

    def _pairs(self, started: Started, done: Done) -> None:
        """Process rows of a prompt with answers: preference, unpaired, stepwise, prompts."""
        rows = [row for row, text in started if not isinstance(text, RowError)]
        texts: dict[str, list[Rendered]] = {}  # by index of their row

        def render(asked: Conversation, add_generation_prompt: bool) -> Rendered:
            rendered = self._render(asked, add_generation_prompt)
            texts.setdefault(str(asked.origin), []).append(rendered)
            return rendered

        encoded = iter(pairs.encode_rows(rows, render, self._tokeniser))
        for row, text in started:
            columns: Any = text if isinstance(text, RowError) else next(encoded)
            if isinstance(columns, RowError):
                done.errors.append(placed(columns, row))
                continue
            if truncate.pair_length(columns) > self._size:
                shorter = self._shorter_pair(row, columns)
                if shorter is None:
                    done.dropped[self._too_long] += 1
                    continue
                row, columns = shorter
                done.changed[self._made_to_fit] += 1
            of_row = texts.get(str(row.origin), [])
            done.changed.update(spelling.of_conversation(of_row, self._tokeniser))
            done.samples.append(self._sample(row, columns, Rendered("")))

    def _plain(self, started: Started, done: Done) -> None:
        rows = [row for row, text in started if not isinstance(text, RowError)]
        encode = plain_texts.encode_rows
        encoded = encode(rows, self._tokenizer, self._size, self._embedding, self._policy)
        for row, text in started:
            found = text if isinstance(text, RowError) else next(encoded)
            if isinstance(found, RowError):
                done.errors.append(placed(found, row))
            elif found[1] and self._policy == "drop":
                done.dropped[self._too_long] += 1
            else:
                done.changed.update([self._made_to_fit] if found[1] else [])
                done.samples.append(self._sample(row, found[0], Rendered("")))

    def _shorter_pair(self, row: Row, columns: dict[str, Any]) -> tuple[Row, dict[str, Any]] | None:
        """The row within max_length, with its remaining prompt; None if it is to be dropped."""
        if self._policy != "turns":
            if self._policy == "drop" or any(media.parts(row)):
                return None
            cut = truncate.cut_pair(columns, self._size, self._policy, self._bos)
            return None if cut is None else (row, cut)

        def attempt(messages: list[Any]) -> tuple[Row, dict[str, Any]] | None:
            fewer = truncate.with_prompt(row, messages)
            (found,) = pairs.encode_rows([fewer], self._render, self._tokeniser)
            if isinstance(found, dict) and truncate.pair_length(found) <= self._size:
                return fewer, found
            return None

        return truncate.without_oldest(truncate.prompt_of(row), attempt)

    def _sample(self, row: Row, columns: dict[str, Any], shown: Rendered) -> Sample:
        """A sample with its column of media. shown: empty for a row that is shown by its
        columns."""
        line = row.origin.line if row.origin else None
        sample = Sample(str(row.origin), line, columns, shown.text, shown.trained)
        if self.takes_media:
            parts = list(media.parts(row))
            columns[MEDIA] = media.written(parts, self._folders)
            sample.media = self._media.seen(parts)
        return sample
