"""The rows that training reads: prepared once, kept on disk by what they depend on, split and mixed
by number."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import Table, concat_tables

from tunewright import RecipeError, RunError
from tunewright.types import Data, DataRequest
from tunewright_dataset_chat import (
    cached_shards,
    columns,
    fingerprint,
    local_paths,
    mix,
    prepared,
)
from tunewright_dataset_chat.cached_shards import CachedShard
from tunewright_dataset_chat.chunk_processor import ChunkProcessor, ChunkResult
from tunewright_dataset_chat.columns import LINE
from tunewright_dataset_chat.source import open_sources
from tunewright_dataset_chat.source_stream import Counts, Stream
from tunewright_dataset_chat.streamed_dataset import Streaming
from tunewright_dataset_chat.workers import Workers

if TYPE_CHECKING:
    from tunewright.run import Run

VALIDATION = "validation"  # name of the evaluation set that is split off


def build(run: "Run", request: DataRequest, options: Any) -> Data:
    """The tokenised rows of the recipe's `data` and `eval_data`; rows_read and dropped count both.

    Raises RecipeError and RowError; RunError where no row is left, or the cache cannot be written.
    """
    if options.validation and VALIDATION in request.eval_entries:
        raise RecipeError(
            "eval_data has a set of that name, and so has dataset.validation", place=VALIDATION
        )
    streamed = (
        [Streaming(run, request, options, ChunkProcessor.of(run, request, options.truncate))]
        if options.streaming
        else []
    )
    tally, identity = Counts(), []
    groups: dict[str, list[CachedShard]] = {}
    for place, entries in _groups(request, options).items():
        groups[place] = prepare(run, request, options, place, entries)
        for part in groups[place]:
            tally.add(Counts.from_dict(part.facts["tally"]))
            identity.append([place, part.facts["identity"]])
        if not any(part.rows for part in groups[place]):
            reasons = ", ".join(f"{count} {reason}" for reason, count in tally.dropped.items())
            raise RunError(f"no row is left of {tally.records}: {reasons}", place=place)
    mixing = [
        options.model_dump(include={"mixing", "stop", "validation"}),
        [e.weight for e in request.entries],
    ]
    key = fingerprint.digest(
        [identity, mixing, request.seed, [each.identity() for each in streamed]]
    )
    made = {place: _dataset(each, f"{key} {place}") for place, each in groups.items()}
    evals = {name: made[f"eval_data.{name}"] for name in request.eval_entries}
    data = Data(
        streamed[0] if streamed else made["data"], evals, tally.records, dict(tally.dropped)
    )
    data.notes, data.fingerprint = tally.words(), key
    if streamed:
        data.notes += streamed[0].notes
    else:
        _split_and_mix(data, groups["data"], request, options)
    return data


def prepare(
    run: "Run", request: DataRequest, options: Any, place: str, entries: list[Any]
) -> list[CachedShard]:
    """The prepared rows of these entries: as they lie in the cache, or made now. Raises as `build`
    does."""
    shared = fingerprint.settings(run, request, options)
    if options.prepared:
        folder = local_paths.resolve(request.root, options.prepared, "dataset.prepared")
        return [
            prepared.check(
                prepared.find(folder, shared, fingerprint.written(entry), f"{place}.{index}"),
                request,
                folder,
            )
            for index, entry in enumerate(entries)
        ]
    (cache, note), found = _cache(request, options), []
    step = ChunkProcessor.of(run, request, options.truncate)
    sources = open_sources(entries, place, request.root, options.max_record_bytes)
    with Workers(options.workers, run, request, options.truncate) as workers:
        for entry, source in zip(entries, sources, strict=True):
            source.notes += [note] * bool(note)
            stream = Stream(run, source, request, step, options.on_bad_row == "skip")
            written = fingerprint.written(entry)
            found.append(_part(stream, workers, cache, shared, written, run))
    return found


def _groups(request: DataRequest, options: Any) -> dict[str, list[Any]]:
    """Place in the recipe → entries of which rows are prepared."""
    evals = {f"eval_data.{name}": entries for name, entries in request.eval_entries.items()}
    return evals if options.streaming else {"data": request.entries} | evals


# ---- parts ---------------------------------------------------------------------------------------


def _part(
    stream: Stream, workers: Workers, cache: Path, shared: dict[str, Any], written: str, run: "Run"
) -> CachedShard:
    """The source's rows from the cache, or prepared now and put there."""
    source = stream.source
    identity = fingerprint.digest([shared, fingerprint.entry(source), source.digests()])
    folder = cache / fingerprint.digest([identity, fingerprint.code(run, source)])
    if found := cached_shards.read(folder):
        for note in found.facts["tally"]["notes"][-1:]:
            found.facts["tally"]["notes"][-1] = f"{note}, from the cache"
        return found
    with cached_shards.locked(folder):
        if found := cached_shards.read(folder):  # another process made it while this one waited
            return found
        facts = {"identity": identity, "entry": written, "settings": shared}
        schema = columns.schema(shared["rows"])
        return cached_shards.write(
            folder, _record_batches(stream.batches(schema, workers), stream, facts), schema, facts
        )


def _record_batches(
    found: Iterator[ChunkResult], stream: Stream, facts: dict[str, Any]
) -> Iterator[pa.RecordBatch]:
    weighted = False
    for made in found:
        weighted = weighted or made.weighted
        if made.batch is not None:
            yield made.batch
    facts |= {"tally": stream.tally.as_dict(), "weighted": weighted}


def _cache(request: DataRequest, options: Any) -> tuple[Path, str]:
    """The folder for prepared rows, and what has to be said of it."""
    if options.cache:
        return local_paths.resolve(request.root, options.cache, "dataset.cache"), ""
    return local_paths.default_cache()


# ---- tables --------------------------------------------------------------------------------------


def _dataset(found: list[CachedShard], key: str) -> datasets.Dataset:
    weighted = any(part.facts["weighted"] for part in found)
    left_out = [LINE] if weighted or "loss_weights" not in _names(found) else [LINE, "loss_weights"]
    tables = [part.table().drop(left_out) for part in found if part.rows]
    # with a fingerprint of ours the library makes none, for which it would pickle the table
    return datasets.Dataset(_joined(tables), fingerprint=fingerprint.digest(key))


def _names(found: list[CachedShard]) -> Iterable[str]:
    names: Iterable[str] = next(part.table().column_names for part in found if part.rows)
    return names


def _joined(tables: list[Table]) -> Table:
    return tables[0] if len(tables) == 1 else concat_tables(tables)


def _split_and_mix(
    data: Data, found: list[CachedShard], request: DataRequest, options: Any
) -> None:
    """Take the rows for validation out of the training rows, and say which rows an epoch has."""
    sizes, weights = [part.rows for part in found], [entry.weight for entry in request.entries]
    if options.validation:
        kept, held = mix.split(_records(found), options.validation, request.seed)
        whole, key = data.train, data.fingerprint
        data.train = whole.select(kept, new_fingerprint=fingerprint.digest([key, "train"]))
        data.evals = {
            VALIDATION: whole.select(held, new_fingerprint=fingerprint.digest([key, "held"])),
            **data.evals,
        }
        data.notes.append(f"{len(held)} of {len(whole)} rows are set aside for validation")
        edges = np.searchsorted(kept, np.cumsum([0, *sizes]))
        sizes = np.diff(edges).tolist()
    if options.mixing == "concatenate" and set(weights) == {1.0}:
        return
    some = [place for place, size in enumerate(sizes) if size]
    sizes, weights = [sizes[place] for place in some], [weights[place] for place in some]
    counts = mix.counts(sizes, weights, options.mixing, options.stop)
    data.order = mix.Mix(tuple(sizes), tuple(counts), options.mixing == "interleave", request.seed)
    for place, count, size in zip(some, counts, sizes, strict=True):
        data.notes.append(
            f"data.{place}: {count} of {size} rows an epoch "
            f"({100 * count / sum(counts):.1f} % of it)"
        )


def _records(found: list[CachedShard]) -> np.ndarray:
    """The number of each row's record: another one begins where the line is another, or not
    known."""
    numbers, before = [], 0
    for part in found:
        if part.rows:
            lines = (
                part.table().column(LINE).to_numpy()
            )  # not known: NaN, which differs from itself
            numbers.append(before + np.cumsum(np.append(True, lines[1:] != lines[:-1])))
            before = numbers[-1][-1]
    return np.concatenate(numbers)
