"""Preview and statistics of a recipe's rows."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tunewright import RowError
from tunewright.types import DataRequest, Row, RunContext, Span
from tunewright_dataset_chat import local_paths, media, media_store
from tunewright_dataset_chat.chunk_processor import ChunkProcessor
from tunewright_dataset_chat.row_processor import RowProcessor
from tunewright_dataset_chat.samples import IGNORED, Done, Sample
from tunewright_dataset_chat.source import open_sources
from tunewright_dataset_chat.source_stream import Counts, Stream

LOOKED_AT = 1000  # records read from each streamed source


@dataclass
class Preview:
    samples: list[Sample]
    lengths: list[int]  # tokens of each row that is kept
    trained_tokens: int  # total
    rows_read: int
    dropped: dict[str, int]  # reason → rows
    notes: list[str]


@dataclass
class MediaStats:
    """Media of one kind, each place in a row counted."""

    count: int = 0
    rows: int = 0  # that have some
    tokens: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height in pixels
    seconds: list[float] = field(default_factory=list)  # of videos and audio


@dataclass
class Stats:
    """Statistics of the rows of `data`, each counted once, whatever its source's weight."""

    lengths: list[int] = field(default_factory=list)  # tokens of each row that is kept
    trained_tokens: int = 0
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)  # title → (rows, tokens)
    roles: Counter[str] = field(default_factory=Counter)  # role → messages
    turns: Counter[int] = field(default_factory=Counter)  # number of user messages → rows
    duplicates: int = 0  # rows with the same tokens and media as an earlier row
    media: dict[str, MediaStats] = field(default_factory=dict)  # by kind
    rows_read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # reason → rows
    notes: list[str] = field(default_factory=list)


def preview(run: RunContext, request: DataRequest, count: int) -> Preview:
    """The first `count` rows of `data` as the model sees them, and the lengths of all rows (for
    streamed sources, of the first records).

    Raises RecipeError and RowError.
    """
    tally, shown = Counts(), Preview([], [], 0, 0, {}, [])
    for stream in _streams(run, request, RowProcessor):
        for sample in (sample for batch in stream for sample in batch):
            shown.lengths.append(len(sample.input_ids))
            shown.trained_tokens += _trained(sample)
            if len(shown.samples) < count:
                shown.samples.append(
                    sample if sample.text else _written(sample, request.loaded.tokenizer)
                )
        tally.add(stream.tally)
    shown.rows_read, shown.dropped, shown.notes = tally.records, dict(tally.dropped), tally.words()
    return shown


def stats(run: RunContext, request: DataRequest) -> Stats:
    """Statistics of all rows of `data` (for streamed sources, of the first records).

    Raises RecipeError and RowError.
    """
    tally, found = Counts(), Stats()
    known: set[bytes] = set()
    for stream in _streams(run, request, _counting(found)):
        before = len(found.lengths), sum(found.lengths)
        for sample in (sample for batch in stream for sample in batch):
            ids = [value for name, value in sample.columns.items() if name.endswith("_ids")]
            paths = [medium.path for medium in sample.media]
            key = hashlib.blake2b(repr([ids, paths]).encode(), digest_size=16).digest()
            found.duplicates += key in known
            known.add(key)
            found.lengths.append(len(sample.input_ids))
            found.trained_tokens += _trained(sample)
            _count_media(sample, found.media)
        found.sources[stream.source.title] = (
            len(found.lengths) - before[0],
            sum(found.lengths) - before[1],
        )
        tally.add(stream.tally)
    found.rows_read, found.dropped, found.notes = tally.records, dict(tally.dropped), tally.words()
    return found


def _counting(found: Stats) -> type[RowProcessor]:
    """Row processor that counts the messages of all converted rows, including those that are too
    long."""

    class Counting(RowProcessor):
        def __call__(
            self, rows: list[Row | RowError], folders: media.Folders = media.NO_FOLDERS
        ) -> Done:
            for row in rows:
                if not isinstance(row, RowError) and (
                    roles := Counter(each.role for each in media.messages(row))
                ):
                    found.roles.update(roles)
                    found.turns[roles["user"]] += 1
            return super().__call__(rows, folders)

    return Counting


def _count_media(sample: Sample, found: dict[str, MediaStats]) -> None:
    for kind in {medium.kind for medium in sample.media}:
        found.setdefault(kind, MediaStats()).rows += 1
    for medium in sample.media:
        stats, shape = found[medium.kind], medium.shape
        stats.count += 1
        stats.tokens += medium.tokens
        if shape.width:
            stats.sizes.append((shape.width, shape.height))
        if shape.seconds:
            stats.seconds.append(shape.seconds)


def _streams(run: RunContext, request: DataRequest, work: type[RowProcessor]) -> Iterator[Stream]:
    """Yield the sources' streams, one after the other."""
    options = run.plugin("dataset").options
    if options.streaming and request.limit is None:
        request = replace(request, limit=LOOKED_AT)
    step = ChunkProcessor.of(run, request, options.truncate, work)
    cache, _ = local_paths.cache(request.root, options.cache)
    store = media_store.folder(cache, request)
    for source in open_sources(
        request.entries, "data", request.root, options.max_record_bytes, store
    ):
        yield Stream(run, source, request, step, options.on_bad_row == "skip")


def _trained(sample: Sample) -> int:
    return len(sample.labels) - int(np.count_nonzero(np.asarray(sample.labels) == IGNORED))


def _written(sample: Sample, tokenizer: Any) -> Sample:
    """A truncated row as the text of its tokens; a prompt with answers as the text of its columns,
    with the answers as trained spans."""
    parts = (
        _pieces(sample, tokenizer) if "labels" in sample.columns else _answers(sample, tokenizer)
    )
    text, trained = "", []
    for part, is_trained in parts:
        if is_trained:
            trained.append(Span(len(text), len(text) + len(part)))
        text += part
    return replace(sample, text=text, trained=trained)


def _pieces(sample: Sample, tokenizer: Any) -> Iterator[tuple[str, bool]]:
    tokens = zip(sample.input_ids, sample.labels, strict=True)
    for trained, group in itertools.groupby(tokens, key=lambda token: token[1] != IGNORED):
        yield tokenizer.decode([token for token, _ in group]), trained


def _answers(sample: Sample, tokenizer: Any) -> Iterator[tuple[str, bool]]:
    for name, value in sample.columns.items():
        if value is not None:
            yield f"{name.removesuffix('_ids')}: ", False
            if name == "document_ids":
                yield "\n".join(map(tokenizer.decode, value)), True
            else:
                ids = name.endswith("_ids")
                yield tokenizer.decode(value) if ids else str(value), ids and name != "prompt_ids"
            yield "\n", False
