"""Benchmark of data preparation: speed, memory, and time per step.

    python tests/bench/data.py [--kind alpaca|chats] [--samples 100000|30000] [--times 10]
                               [--template chatml|qwen3] [--workers 1 2] [--repeat 3]
                               [--parts] [--profile] [--keep FOLDER]

Generates synthetic data (words of syllables with realistic frequencies; the same on every machine)
and a byte-level BPE of 32,000 tokens, trained on part of it. Each measurement runs in a separate
process, alternating, --repeat times. Measured are reading, converting, rendering, masking,
tokenising and writing to disk together, including the start of workers, but not imports and loading
the tokenizer. The baseline is `encode_batch_fast` of the tokenizers library alone, on all cores,
over the same rendered texts. Prints the fastest of each, and its share of the baseline: the median
of the shares of each turn, since other load varies. CPU seconds count all threads and workers, and
hardly depend on other load. Memory is the peak resident memory of the process and its workers, and
that before preparation began. --times: repeat the samples so many times, without the baseline, to
show that cost grows linearly and memory does not. --parts runs step after step; --profile shows
Python's profile for the first records.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from synthetic import train_tokenizer, write_data

# ---- what is measured, each in a process of its own ----------------------------------------------


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


# ---- and shown -----------------------------------------------------------------------------------


def measure(what: str, options: argparse.Namespace, **dataset: Any) -> dict[str, Any]:
    """Run a measurement in a separate process."""
    shutil.rmtree(Path(options.keep) / "cache", ignore_errors=True)
    arguments = [
        "--samples",
        str(options.samples),
        "--times",
        str(options.times),
        "--kind",
        options.kind,
        "--template",
        options.template,
        "--keep",
        options.keep,
        "--dataset",
        json.dumps(dataset),
        "--what",
        what,
    ]
    command = [sys.executable, __file__, *arguments]
    errors = None if what == "profile" else subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout
        watch = Watch(process.pid)
        for line in iter(process.stdout.readline, ""):
            if line == "ready\n":
                watch.start()
            elif line == "done\n":
                watch.stop()
            else:
                found: dict[str, Any] = json.loads(line) | watch.found
        if process.wait():
            sys.exit(process.stderr.read() if process.stderr else "failed")
    return found


class Watch(threading.Thread):
    """Samples the memory of a process and its children."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process, self._ended = psutil.Process(process), threading.Event()
        self.found: dict[str, Any] = {}

    def run(self) -> None:
        self.found = {"before": self._resident(), "memory": 0.0}
        while not self._ended.wait(0.5):
            self.found["memory"] = max(self.found["memory"], self._resident())

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _resident(self) -> float:
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / (1 << 20)


def show(name: str, made: list[dict[str, Any]], samples: int, limit: list[dict[str, Any]]) -> None:
    best = min(made, key=lambda result: result["seconds"])
    rate, tokens = samples / best["seconds"], best["tokens"] / best["seconds"]
    cpu = 1e6 * min(result["cpu"] for result in made) / samples
    share = ""
    if limit and limit is not made:
        shares = [
            theirs["seconds"] / ours["seconds"] for ours, theirs in zip(made, limit, strict=True)
        ]
        share = f" {100 * statistics.median(shares):4.0f} % of it"
    memory = f"{max(result['memory'] for result in made):6,.0f} MB ({best['before']:,.0f} before)"
    all_ = ", ".join(f"{result['seconds']:.1f}" for result in made)
    print(
        f"{name:24} {rate:7,.0f} samples/s {tokens:10,.0f} tokens/s {cpu:6.0f} µs CPU "
        f"{memory}{share}  [{all_} s]"
    )


def compare(options: argparse.Namespace) -> None:
    samples, turns = options.samples * options.times, []
    for _ in range(options.repeat):
        limit = [] if options.times > 1 else [measure("yardstick", options)]
        turns.append(
            [
                *limit,
                *(measure("prepared", options, workers=workers) for workers in options.workers),
            ]
        )
    columns = [list(column) for column in zip(*turns, strict=True)]
    limit = [] if options.times > 1 else columns.pop(0)
    if limit:
        print(f"{limit[0]['tokens'] / samples:.0f} tokens a sample")
        show("encode_batch_fast alone", limit, samples, limit)
    for workers, made in zip(options.workers, columns, strict=True):
        show(f"prepared, {workers} worker{'s' * (workers > 1)}", made, samples, limit)
    facts = {
        name: value
        for name, value in columns[0][0].items()
        if name.startswith(("padding", "packing"))
    }
    print("; ".join(f"{name} {value:.3f}" for name, value in facts.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--kind", choices=["alpaca", "chats"], default="alpaca")
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument(
        "--keep", help="folder for the data and the tokenizer, which are then there again"
    )
    parser.add_argument("--dataset", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=WHAT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.samples = options.samples or {"alpaca": 100_000, "chats": 30_000}[options.kind]
    if options.what:
        print(json.dumps(WHAT[options.what](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or folder
        Path(options.keep).mkdir(parents=True, exist_ok=True)
        write_data(data_path(options), options.kind, options.samples, options.times)
        size = data_path(options).stat().st_size
        train_tokenizer(Path(options.keep))
        # not available on Windows
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        rows = (
            f"{options.samples * options.times:,} {options.kind}, {size / 1e6:,.0f} MB, "
            f"{options.template}"
        )
        print(f"{rows}, {os.cpu_count()} cores{load}", flush=True)
        compare(options)
        if options.parts:
            found = min(
                (measure("parts", options) for _ in range(options.repeat)),
                key=lambda made: made["seconds"],
            )
            for name, microseconds in found["parts"].items():
                print(f"  {microseconds:8.1f} µs a sample  {name}")
        if options.profile:
            measure("profile", options)


if __name__ == "__main__":
    main()
