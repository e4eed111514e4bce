"""Benchmark of preparation with images: headers per second, rows per second, and memory.

    python tests/bench/media.py [--rows 100000] [--files 200] [--peer 200] [--twin qwen2_vl]
                                [--keep FOLDER] [--repeat 3] [--threads 1]

Generates JPEG files of noise in 40 shapes, linked under a name of its own for every row, and rows
in LLaVA's form: a question with an image, and an answer of 60 words. Each measurement runs in a
separate process:

- headers: `measure` for each file.
- prepare: the whole preparation, from JSON to tokenised rows on disk, on one core, without imports
  and loading.
- peer: decoding the image and calling the processor with text and image for --peer rows, as
  frameworks do that process media while they tokenise.
- loop: decoding, and the processor's call for the image with its placeholder, of --peer images, one
  after the other.
- images: the same with the image processor alone, which makes no tokens.
- batches: batches of four of the same rows from the training's collator, in this process and from
  1 and 2 workers, by the clock; the consumer is idle.

Everything runs with one torch thread, as data-loader workers always do; with --threads 2 the loop,
and batches without workers, use two to resize images. Files are read from the page cache. CPU
seconds hardly depend on other load. Memory is the resident memory before, and its peak.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

SHAPES = 40
FEW = 1000  # rows for what does not prepare all of them
ANSWER = " ".join(["a man in a red jacket stands beside an old bicycle"] * 6)
QUESTION = "<image>\nDescribe the image in detail."


def write_data(folder: Path, rows: int, files: int) -> None:
    """Files, a link to one for each row, and the rows."""
    images, links = folder / "files", folder / "images"
    for made in (images, links):
        made.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    sizes = chance.integers(300, 1100, (SHAPES, 2))
    for number in range(files):
        width, height = (int(side) for side in sizes[number % SHAPES])
        coarse = chance.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        picture.save(images / f"{number}.jpg", quality=85)
    for row in range(rows):
        if not (link := links / f"{row}.jpg").exists():
            os.link(images / f"{row % files}.jpg", link)
    for name, count in (("few", min(rows, FEW)), ("rows", rows)):
        with (folder / f"{name}.json").open("w") as file:
            file.write("[")
            for row in range(count):
                said = [("human", QUESTION), ("gpt", f"{ANSWER} {row}")]
                turns = [{"from": who, "value": text} for who, text in said]
                record = {"id": str(row), "image": f"images/{row}.jpg", "conversations": turns}
                file.write(("," if row else "") + json.dumps(record))
            file.write("]")


def loaded(options: argparse.Namespace, name: str = "few") -> tuple[Any, Any]:
    """A run of a recipe with the data of this file, and its data request."""
    from tunewright.check import resolve
    from tunewright.run import Run

    folder = Path(options.keep)
    recipe = {
        "model": "tiny",
        "family": {"name": options.family, "tiny_variant": options.twin},
        "stage": "sft",
        "loggers": [],
        "dataset": {"name": "chat", "cache": str(folder / f"cache-{os.getpid()}")},
        "data": [{"path": str(folder / f"{name}.json")}],
        "training": {"max_length": 8192},
        "output": str(folder / "run"),
    }
    run = Run(resolve(recipe))
    return run, run.data_request(run.load(weights="none"), 0)


def headers(options: argparse.Namespace) -> dict[str, Any]:
    from tunewright_hf.media.decode import measure

    paths = [str(Path(options.keep) / "images" / f"{row}.jpg") for row in range(options.rows)]
    measure("image", paths[0])  # imports
    return timed(lambda: len([measure("image", path) for path in paths]))


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    run, request = loaded(options, "rows")
    return timed(lambda: len(run.call("dataset", "build_dataset", request).train))


def peer(options: argparse.Namespace) -> dict[str, Any]:
    """The processor for every row, with decoded images."""
    _, request = loaded(options)
    processor = request.loaded.processor
    text = f"{processor.image_token}\n{QUESTION}{ANSWER}"

    def process() -> int:
        for row in range(options.peer):
            with Image.open(Path(options.keep) / "images" / f"{row}.jpg") as picture:
                processor(text=[text], images=[picture.convert("RGB")], return_tensors="pt")
        return int(options.peer)

    processor(text=[text], images=[Image.new("RGB", (640, 480))])  # imports
    return timed(process)


def loop(options: argparse.Namespace, whole: bool = True) -> dict[str, Any]:
    _, request = loaded(options)
    processor = request.loaded.processor

    def ask(picture: Image.Image) -> None:
        if whole:
            processor(text=[processor.image_token], images=[[picture]], return_tensors="pt")
        else:
            processor.image_processor(images=[picture], return_tensors="pt")

    def process() -> int:
        for row in range(options.peer):
            with Image.open(Path(options.keep) / "images" / f"{row}.jpg") as picture:
                ask(picture.convert("RGB"))
        return int(options.peer)

    ask(Image.new("RGB", (640, 480)))  # imports
    return timed(process)


def batches(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    from torch.utils.data import DataLoader

    from tunewright_hf.batching.collators import Padded
    from tunewright_hf.media.collation import MediaRows
    from tunewright_hf.training.worker_batches import PREFETCH, Guarded, received

    run, request = loaded(options)
    data = run.call("dataset", "build_dataset", request)
    rows = data.train.select(range(options.peer + 4 * max(1, workers)))
    collate = Guarded(Padded(0, media=MediaRows(request.loaded.processor, root=data.media_root)))
    ahead: dict[str, Any] = {"prefetch_factor": PREFETCH} if workers else {}
    loader = iter(DataLoader(rows, batch_size=4, collate_fn=collate, num_workers=workers, **ahead))
    for _ in range(max(1, workers)):  # workers start, and imports
        next(loader)
    left = options.peer // 4
    return timed(lambda: sum(len(received(next(loader))["labels"]) for _ in range(left)))


def cpu_seconds() -> float:
    """Of this process and those that it started."""
    here = psutil.Process()
    times = [each.cpu_times() for each in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def timed(work: Callable[[], int]) -> dict[str, Any]:
    before, cpu, start = psutil.Process().memory_info().rss, cpu_seconds(), time.perf_counter()
    count = work()
    seconds, spent = time.perf_counter() - start, cpu_seconds() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"count": count, "seconds": seconds, "cpu": spent, "before": before, "peak": peak}


REPEATED = {"loop": loop, "images": partial(loop, whole=False)} | {
    f"batches, {workers} workers": partial(batches, workers=workers) for workers in (0, 1, 2)
}
WHAT = {"headers": headers, "prepare": prepare, "peer": peer} | REPEATED


def measured(what: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--what", what, "--keep", options.keep]
    for name in ("rows", "peer", "twin", "family"):
        command += [f"--{name}", str(getattr(options, name))]
    threads = {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    made = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | threads, check=True
    )
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=200, help="different images")
    parser.add_argument("--peer", type=int, default=200, help="rows of the peer's way")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch threads, but of workers")
    parser.add_argument("--family", default="qwen")
    parser.add_argument("--twin", default="qwen2_vl")
    parser.add_argument("--keep", help="folder for the data, which is then there again")
    parser.add_argument("--what", choices=WHAT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what:
        print(json.dumps(WHAT[options.what](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or folder
        if not (Path(options.keep) / "rows.json").exists():
            write_data(Path(options.keep), options.rows, options.files)
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        where = f"{os.cpu_count()} cores{load}, {options.threads} torch threads"
        print(f"{options.rows:,} rows, {options.twin}, {where}", flush=True)
        for what in [each for each in WHAT if each not in REPEATED]:
            show(what, measured(what, options))
        best: dict[str, dict[str, Any]] = {}
        for _ in range(options.repeat):
            for what in REPEATED:
                made = measured(what, options)
                if what not in best or made["cpu"] < best[what]["cpu"]:
                    best[what] = made
        usual = best["loop"]["count"] / best["loop"]["cpu"]
        for what, made in best.items():
            show(what, made, f"; {made['count'] / made['cpu'] / usual:.0%} of the loop")


def show(what: str, found: dict[str, Any], more: str = "") -> None:
    count, cpu, seconds = found["count"], found["cpu"], found["seconds"]
    memory = f"{found['before'] / 1e6:,.0f} to {found['peak'] / 1e6:,.0f} MB"
    speed = f"{count / cpu:10,.1f} per CPU second, {count / seconds:,.1f} per second"
    times = f"{seconds:8.1f} s, {cpu:8.1f} s of CPU"
    print(f"{what:18} {count:>8,} in {times}: {speed}; memory {memory}{more}", flush=True)


if __name__ == "__main__":
    main()
