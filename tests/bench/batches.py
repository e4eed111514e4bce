"""Time and memory of an epoch's batches, before the first of them is there.

python tests/bench/batches.py 3e6 30e6 1e8         one process
python tests/bench/batches.py 3e6 30e6 --ranks 4   as many ranks of one host, which share them
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from typing import Any

WAYS = ("random", "length_grouped", "token_budget", "packing")


def lengths_of(rows: int) -> Any:
    """Tokens of so many rows, made piece by piece, as they would be read."""
    import numpy as np

    rng, lengths = np.random.default_rng(0), np.empty(rows, dtype=np.int32)
    for start in range(0, rows, 2**20):
        part = lengths[start : start + 2**20]
        part[:] = np.minimum(rng.lognormal(6, 0.8, len(part)), 2047) + 1
    return lengths


def rank(rows: int, way: str, ranks: int, barrier: Any, results: Any) -> None:
    """Put CPU seconds until the first batch and in the middle, the peak of memory, and this rank's
    share of the memory that all hold then."""
    import psutil

    from tunewright.recipe import Training
    from tunewright_hf.batching.batch_sampler import Batches
    from tunewright_hf.batching.host_arrays import host_arrays

    os.environ["LOCAL_WORLD_SIZE"] = str(ranks)
    shared, lengths = host_arrays("bench", rows), None
    if shared:
        lengths = shared.arrays("lengths", lambda: {"lengths": lengths_of(rows)})["lengths"]
    else:
        lengths = lengths_of(rows)
    began = time.process_time()
    training = Training(batching="token_budget" if way == "packing" else way)
    batches = Batches(lengths, training, packing=way == "packing", shared=shared)
    next(iter(batches))
    first = time.process_time() - began
    next(batches.after(len(batches) // 2))
    middle = time.process_time() - began - first
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    barrier.wait()
    left = psutil.Process().memory_full_info().pss / 1e9
    barrier.wait()
    results.put((first, middle, peak, left))


def measure(rows: int, way: str, ranks: int) -> None:
    """Measure in processes of their own, whose memory nothing else has used."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(ranks), context.Queue()
    arguments = (rows, way, ranks, barrier, results)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TUNEWRIGHT_CACHE"] = cache
        processes = [context.Process(target=rank, args=arguments) for _ in range(ranks)]
        for process in processes:
            process.start()
        found = [results.get() for _ in processes]
        for process in processes:
            process.join()
    first, middle, peaks, left = zip(*found, strict=True)
    print(
        f"{rows:>11,} rows  {way:<14} first batch {max(first):5.2f} s of one rank, "
        f"{sum(first):5.2f} of all, in the middle {max(middle):4.2f} s; "
        f"memory {max(peaks):4.2f} GB at the peak of one, {sum(left):4.2f} then of all",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=lambda text: int(float(text)))
    parser.add_argument("--ranks", type=int, default=1)
    options = parser.parse_args()
    for rows in options.rows:
        for way in WAYS:
            measure(rows, way, options.ranks)
