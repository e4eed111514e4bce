"""Build the data of a stage: prepare rows, cache them by their inputs, split and mix them by
index."""

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import Table, concat_tables

from tunewright import RecipeError, RunError
from tunewright.types import Data, DataRequest, RunContext
from tunewright_dataset_chat import (
    cached_shards,
    columns,
    fingerprint,
    local_paths,
    media_columns,
    media_store,
    mix,
    prepared,
)
from tunewright_dataset_chat.cached_shards import CachedShard
from tunewright_dataset_chat.chunk_processor import ChunkProcessor, ChunkResult
from tunewright_dataset_chat.columns import LINE, MEDIA, ORDER
from tunewright_dataset_chat.limits import VALIDATION
from tunewright_dataset_chat.media import Folders
from tunewright_dataset_chat.media_columns import with_full_paths
from tunewright_dataset_chat.source import media_root, open_sources
from tunewright_dataset_chat.source_parts import split
from tunewright_dataset_chat.source_stream import Counts, Stream
from tunewright_dataset_chat.streamed_dataset import Streaming
from tunewright_dataset_chat.workers import Workers
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.models.interrupts import interruptible


def build(run: RunContext, request: DataRequest, options: Any) -> Data:
    """Tokenised rows of the recipe's `data` and `eval_data`; rows_read and dropped count both.

    Raises RecipeError and RowError; RunError if no row is left, or the cache is not writable.
    """
    if options.validation and VALIDATION in request.eval_entries:
        raise RecipeError(
            f"eval_data has a set {VALIDATION}, and this makes one", place="dataset.validation"
        )
    streamed = (
        [Streaming(run, request, options, ChunkProcessor.of(run, request, options.truncate))]
        if options.streaming
        else []
    )
    tally, identity = Counts(), []
    groups: dict[str, list[list[CachedShard]]] = {}  # parts of each source
    for place, entries in _groups(request, options).items():
        groups[place] = prepare(run, request, options, place, entries)
        parts = list(chain.from_iterable(groups[place]))
        for part in parts:
            tally.add(Counts.from_dict(part.facts["tally"]))
            identity.append([place, part.facts["identity"]])
        if not any(part.rows for part in parts) and request.shard == (0, 1):
            reasons = ", ".join(f"{count} {reason}" for reason, count in tally.dropped.items())
            hint = "look at the rows with tunewright data preview"
            if any("max_length" in reason for reason in tally.dropped):
                hint = "raise training.max_length, or cut such rows with dataset.truncate"
            problem = f"no row is left of {tally.records}: {reasons}"
            raise RunError(problem, place=place, hint=hint)
    mixing = [
        options.model_dump(include={"mixing", "stop", "validation"}),
        [e.weight for e in request.entries],
    ]
    if options.order != "shuffled":  # without it, fingerprints are those of earlier versions
        mixing += [options.order] + [options.order_by] * bool(options.order_by)
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
    elif request.shard == (0, 1):
        _split_and_mix(data, groups["data"], request, options)
    return data


def prepare(
    run: RunContext, request: DataRequest, options: Any, place: str, entries: list[Any]
) -> list[list[CachedShard]]:
    """Prepared rows of these sources, in the parts that each was prepared in, from the cache or
    prepared now. Raises as `build` does."""
    shared = fingerprint.settings(run, request, options)
    if options.order_by is not None and place == "data":
        shared["order_by"] = options.order_by
    if options.prepared:
        folder = local_paths.resolve(request.root, options.prepared, "dataset.prepared")
        with interruptible(run.check_stop):
            return [
                _prepared(folder, shared, entry, f"{place}.{index}", request)
                for index, entry in enumerate(entries)
            ]
    cache, note = local_paths.cache(request.root, options.cache)
    found: dict[int, CachedShard] = {}  # by number of the part
    step = ChunkProcessor.of(run, request, options.truncate)
    store = media_store.folder(cache, request)
    opened = open_sources(entries, place, request.root, options.max_record_bytes, store)
    parts = [
        (number, part)
        for number, source in enumerate(opened)
        for part in split(source, request.limit)
    ]
    parts = parts[request.shard[0] :: request.shard[1]] if place == "data" else parts
    with Workers(options.workers, run, request, options.truncate) as workers:
        for _, source in parts:
            source.notes += [note] * bool(note)
        # hosts that share the cache share the work: those of others are taken at the end. Other
        # ranks of this host wait, as its cores have enough to do
        first_here = os.environ.get("LOCAL_RANK", "0") == "0"
        for wait in (False, True) if first_here else (True,):
            for number, (of, source) in enumerate(parts):
                if number not in found:
                    stream = Stream(run, source, request, step, options.on_bad_row == "skip")
                    written = f"{fingerprint.written(entries[of])} {source.part}".rstrip()
                    part = _part(stream, workers, cache, shared, written, run, wait)
                    if part is not None:
                        part.media = source.media
                        found[number] = part
    return [
        [found[number] for number, (of, _) in enumerate(parts) if of == entry]
        for entry in range(len(entries))
    ]


def _prepared(
    folder: Path, shared: dict[str, Any], entry: Any, place: str, request: DataRequest
) -> list[CachedShard]:
    parts = prepared.find(folder, shared, fingerprint.written(entry), place)
    store = media_store.folder(folder, request)
    for part in parts:
        part.media = Folders(media_root(entry, request.root, place), store)
        prepared.check(part, request, folder, ordered="order_by" in shared)
    return parts


def _groups(request: DataRequest, options: Any) -> dict[str, list[Any]]:
    """Place in the recipe → sources to prepare."""
    evals = {f"eval_data.{name}": entries for name, entries in request.eval_entries.items()}
    return evals if options.streaming else {"data": request.entries} | evals


# ---- parts ---------------------------------------------------------------------------------------


def _part(
    stream: Stream,
    workers: Workers,
    cache: Path,
    shared: dict[str, Any],
    written: str,
    run: RunContext,
    wait: bool,
) -> CachedShard | None:
    """Rows of a source, from the cache, or prepared now and cached. wait: for another process that
    prepares them; else None."""
    source = stream.source
    with interruptible(run.check_stop):  # downloads, and reads whole files
        identity = fingerprint.digest([shared, fingerprint.entry(source), source.digests()])
        folder = cache / fingerprint.digest([identity, fingerprint.code(run, source)])
        found = _cached(folder, source.media)
    if found:
        for note in found.facts["tally"]["notes"][-1:]:
            found.facts["tally"]["notes"][-1] = f"{note}, from the cache"
        return found
    with cached_shards.locked(folder, run.check_stop, wait=wait) as has_lock:
        if not has_lock:
            return None
        if found := _cached(folder, source.media):  # another process wrote it in the meantime
            return found
        facts = {"identity": identity, "entry": written, "settings": shared}
        has_media, ordered = shared["processor"] is not None, "order_by" in shared
        schema = columns.schema(shared["rows"], has_media, ordered=ordered)
        return cached_shards.write(
            folder, _record_batches(stream.batches(schema, workers), stream, facts), schema, facts
        )


def _cached(folder: Path, folders: Folders) -> CachedShard | None:
    """The shard in this folder; None if there is none, or one of its media files has changed since:
    its rows may be too long or too short."""
    found = cached_shards.read(folder)
    if found is None or not found.rows or not found.facts["media"]:
        return found
    column = found.table().column(MEDIA)
    now = sum(media_columns.state(chunk, folders) for chunk in column.chunks) % 2**64
    return found if now == found.facts["media"] else None


def _record_batches(
    found: Iterator[ChunkResult], stream: Stream, facts: dict[str, Any]
) -> Iterator[pa.RecordBatch]:
    weighted, state = False, 0
    for made in found:
        weighted = weighted or made.weighted
        if made.batch is not None:
            if MEDIA in made.batch.schema.names:
                state += media_columns.state(made.batch.column(MEDIA), stream.source.media)
            yield made.batch
    facts |= {"tally": stream.tally.as_dict(), "weighted": weighted, "media": state % 2**64}


# ---- tables --------------------------------------------------------------------------------------


def _dataset(sources: list[list[CachedShard]], key: str) -> datasets.Dataset:
    found = list(chain.from_iterable(sources))
    if not any(part.rows for part in found):  # of a shard
        return datasets.Dataset.from_dict({})
    weighted = any(part.facts["weighted"] for part in found)
    unused = {LINE, ORDER} if weighted else {LINE, ORDER, "loss_weights"}
    left_out = [name for name in _names(found) if name in unused]
    tables = [
        with_full_paths(part.table().drop(left_out), part.media) for part in found if part.rows
    ]
    # with a fingerprint of ours, the library need not compute one, for which it would pickle the
    # table
    return datasets.Dataset(_joined(tables), fingerprint=fingerprint.digest(key))


def _names(found: list[CachedShard]) -> Iterable[str]:
    names: Iterable[str] = next(part.table().column_names for part in found if part.rows)
    return names


def _joined(tables: list[Table]) -> Table:
    return tables[0] if len(tables) == 1 else concat_tables(tables)


def _split_and_mix(
    data: Data, sources: list[list[CachedShard]], request: DataRequest, options: Any
) -> None:
    """Split validation rows off the training rows, and set the rows of each epoch."""
    shards = list(chain.from_iterable(sources))
    keys = cached_shards.numbers(shards) if options.order_by is not None else None
    sizes = [sum(part.rows for part in parts) for parts in sources]
    weights = [entry.weight for entry in request.entries]
    if options.validation:
        rows = cached_shards.records(shards)
        kept, held = mix.split(rows, options.validation, request.seed)
        keys = keys if keys is None else keys[kept]
        whole, key = data.train, data.fingerprint
        data.train = whole.select(kept, new_fingerprint=fingerprint.digest([key, "train"]))
        data.evals = {
            VALIDATION: whole.select(held, new_fingerprint=fingerprint.digest([key, "held"])),
            **data.evals,
        }
        data.notes.append(f"{len(held)} of {len(whole)} rows are set aside for validation")
        edges = np.searchsorted(kept, np.cumsum([0, *sizes]))
        sizes = np.diff(edges).tolist()
    some = [place for place, size in enumerate(sizes) if size]
    if options.mixing == "online":
        data.mixed_online = tuple(sizes[place] for place in some)
        data.notes += [f"data.{place}: {sizes[place]} rows, mixed online" for place in some]
        return
    if options.mixing != "concatenate" or set(weights) != {1.0}:
        _mix(data, sizes, weights, request, options)
    mixed: Any = data.order
    if options.order == "length":
        data.order = mix.Ascending(row_lengths(data.train), mixed, request.seed)
    elif keys is not None:
        keys = -keys if options.order == "descending" else keys
        data.order = mix.Ascending(keys, mixed, request.seed)
    elif options.order == "given":
        data.order = mix.Given(len(data.train), mixed)


def _mix(
    data: Data, sizes: list[int], weights: list[float], request: DataRequest, options: Any
) -> None:
    """Set the rows of each epoch by the sources' weights. sizes: rows of each source."""
    some = [place for place, size in enumerate(sizes) if size]
    sizes, weights = [sizes[place] for place in some], [weights[place] for place in some]
    counts = mix.counts(sizes, weights, options.mixing, options.stop)
    data.order = mix.Mix(tuple(sizes), tuple(counts), options.mixing == "interleave", request.seed)
    for place, count, size in zip(some, counts, sizes, strict=True):
        data.notes.append(
            f"data.{place}: {count} of {size} rows an epoch "
            f"({100 * count / sum(counts):.1f} % of it)"
        )
