"""What data.py measures, each in a process of its own."""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def data_path(options: argparse.Namespace) -> Path:
    return Path(options.keep) / f"{options.kind}-{options.samples}x{options.times}.jsonl"


def make_run(options: argparse.Namespace) -> tuple[Any, Any]:
    """A run of a recipe with the data, and its data request."""
    from transformers import PreTrainedTokenizerFast

    from tunewright.check import resolve
    from tunewright.run import Run

    folder = Path(options.keep)
    recipe = resolve(
        {
            "model": "tiny",
            "family": "qwen",
            "template": options.template,
            "stage": "sft",
            "loggers": [],
            "dataset": {
                "name": "chat",
                "cache": str(folder / "cache"),
                **json.loads(options.dataset),
            },
            "data": [{"path": str(data_path(options))}],
            "training": {"max_length": 2048},
            "output": str(folder / "run"),
        }
    )
    run = Run(recipe)
    loaded = run.load(weights="none")
    loaded.tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    return run, run.data_request(loaded)


def prepared(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the whole preparation, from the file to rows on disk."""
    import tunewright_dataset_chat.build  # noqa: F401
    from tunewright_hf.batching.batch_sampler import row_lengths

    run, request = make_run(options)
    print("ready", flush=True)
    started, cpu = time.perf_counter(), cpu_seconds()
    data = run.call("dataset", "build_dataset", request)
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu
    print("done", flush=True)
    lengths = row_lengths(data.train).tolist()
    assert len(lengths) == options.samples * options.times, data.dropped
    facts = batches(lengths) if options.times == 1 else {}
    return {"seconds": seconds, "cpu": cpu, "tokens": sum(lengths), **facts}


def yardstick(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the tokenizer alone, over the rendered texts."""
    from tokenizers import Tokenizer

    run, request = make_run(options)
    tokenizer = Tokenizer.from_file(str(Path(options.keep) / "tokenizer.json"))
    seconds = cpu = tokens = 0.0
    print("ready", flush=True)
    for texts in rendered(run, request):
        started, cpu_before = time.perf_counter(), cpu_seconds()
        found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        seconds, cpu = seconds + time.perf_counter() - started, cpu + cpu_seconds() - cpu_before
        tokens += sum(map(len, found))
    print("done", flush=True)
    return {"seconds": seconds, "cpu": cpu, "tokens": tokens}


def rendered(run: Any, request: Any) -> Iterator[list[str]]:
    from tunewright_dataset_chat.unread import Unread

    work, _, records, conversion = opened(run, request)
    handle = conversion.handle(run)
    while items := list(itertools.islice(records, 1000)):
        yield [text.text for _, text in work.start(conversion(run, handle, items, Unread()))]


def opened(run: Any, request: Any) -> tuple[Any, Any, Any, Any]:
    """Objects that process a chunk."""
    from tunewright_dataset_chat import source
    from tunewright_dataset_chat.row_processor import RowProcessor

    policy = run.plugin("dataset").options.truncate
    work = RowProcessor.of(run, request.loaded.tokenizer, request.rows, request.max_length, policy)
    (one,) = source.open_sources(request.entries, "data", request.root)
    return work, one, *source.opened(run, one, request)


def each_part(options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds per sample of each step, run in sequence."""
    from tunewright_dataset_chat import columns
    from tunewright_dataset_chat.chunk_processor import collected_once
    from tunewright_dataset_chat.unread import Unread

    run, request = make_run(options)
    work, source, records, conversion = opened(run, request)
    handle, schema = conversion.handle(run), columns.schema("messages")
    spent = dict.fromkeys(
        ("read and parse", "convert", "render", "tokenise and mask", "fit", "to Arrow"), 0.0
    )

    def timed(name: str, step: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = step(*arguments)
        spent[name] += time.perf_counter() - started
        return result

    with collected_once():
        while items := timed("read and parse", lambda: list(itertools.islice(records, 1000))):
            begun = timed(
                "render", work.start, timed("convert", conversion, run, handle, items, Unread())
            )
            tokens = timed("tokenise and mask", work.tokenise, begun)
            done = timed("fit", work.finish, begun, tokens)
            timed("to Arrow", columns.record_batch, done.samples, "messages", schema)
    total = source.records
    return {
        "parts": {name: 1e6 * seconds / total for name, seconds in spent.items()},
        "seconds": sum(spent.values()),
    }


def batches(lengths: list[int]) -> dict[str, float]:
    """Share of padding in batches of 8 rows, on average with token_budget, and fill of packs of
    2,048 tokens."""
    from tunewright.recipe import Training
    from tunewright_hf.batching.batch_sampler import Batches

    def share(**how: Any) -> float:
        packing = how.pop("packing", False)
        made = list(Batches(lengths, Training(**how), packing=packing))
        real = sum(lengths[row] for batch in made for row in batch)
        return real / sum(
            2048 * 8 if packing else max(lengths[row] for row in batch) * len(batch)
            for batch in made
        )

    started = time.perf_counter()
    fill = share(packing=True, max_length=2048)
    seconds = time.perf_counter() - started
    return {
        "padding random": 1 - share(batching="random"),
        "padding length_grouped": 1 - share(batching="length_grouped"),
        "padding token_budget": 1 - share(batching="token_budget"),
        "packing fill": fill,
        "packing seconds": seconds,
    }


def profiled(options: argparse.Namespace) -> dict[str, Any]:
    import cProfile
    import pstats

    run, request = make_run(options)
    request.limit = 20_000
    profile = cProfile.Profile()
    profile.runcall(run.call, "dataset", "build_dataset", request)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    return {"seconds": 0.0}


def cpu_seconds() -> float:
    return sum(os.times()[:4])  # of all threads, and of workers that have ended


WHAT = {"prepared": prepared, "yardstick": yardstick, "parts": each_part, "profile": profiled}
