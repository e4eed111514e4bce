"""Time and memory of an epoch's batches, before the first of them is there.

python tests/bench/batches.py 3e6 30e6
"""

import argparse
import resource
import subprocess
import sys
import time

WAYS = ("random", "length_grouped", "token_budget", "packing")


def measure(rows: int, way: str) -> None:
    """Print CPU seconds until the first batch, and the peak of memory, of `rows` rows."""
    import numpy as np

    from tunewright.recipe import Training
    from tunewright_hf.batching.batch_sampler import Batches

    rng = np.random.default_rng(0)
    lengths = (np.minimum(rng.lognormal(6, 0.8, rows), 2047) + 1).astype(np.int32)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    packing = way == "packing"
    batches = Batches(
        lengths, Training(batching="token_budget" if packing else way), packing=packing
    )
    next(iter(batches))
    spent = time.process_time() - began
    next(batches.after(len(batches) // 2))
    resumed = time.process_time() - began - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{rows:>11,} rows  {way:<14} first batch {spent:6.2f} s, in the middle {resumed:5.2f} s, "
        f"memory {peak / 1e6:5.2f} GB (imports and lengths {before / 1e6:.2f})",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=lambda text: int(float(text)))
    parser.add_argument("--way", choices=WAYS)
    options = parser.parse_args()
    for rows in options.rows:
        if options.way:
            measure(rows, options.way)
            continue
        for way in WAYS:  # each in a process of its own, whose memory nothing else has used
            subprocess.run([sys.executable, __file__, str(rows), "--way", way], check=True)
