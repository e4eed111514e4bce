"""Benchmark of the head's loss and gradient on a CPU: torch's own, and in blocks of the vocabulary.

    python tests/bench/head.py [--positions 1024]

For heads of several vocabularies and hidden sizes in fp32: milliseconds of
`chunked_cross_entropy.weighted_sum` with the gradients of states and weights, the best of five,
with the general head and with the matrix head.
"""

import argparse
import time

import torch
from torch.nn import functional as F

from tunewright_hf.losses.chunked_cross_entropy import weighted_sum

HEADS = [(32_000, 256), (32_000, 2048), (128_256, 256), (151_936, 896)]  # vocabulary, hidden size


def milliseconds(words: int, size: int, positions: int, is_plain: bool) -> float:
    torch.manual_seed(0)
    head = (torch.randn(words, size) * 0.02).requires_grad_()
    states = torch.randn(1, positions, size, requires_grad=True)
    targets, weights = torch.randint(0, words, (1, positions)), torch.ones(1, positions)
    times = []
    for _ in range(6):
        head.grad = states.grad = None
        started = time.perf_counter()
        plain = head if is_plain else None
        weighted_sum(
            states, lambda each: F.linear(each, head), targets, weights, words, None, [head], plain
        ).backward()
        times.append(time.perf_counter() - started)
    return 1000 * min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--positions", type=int, default=1024)
    positions = parser.parse_args().positions
    print(f"{torch.get_num_threads()} threads, {positions} positions")
    for words, size in HEADS:
        either, matrix = (
            milliseconds(words, size, positions, is_plain) for is_plain in (False, True)
        )
        times = f"{either:7,.0f} ms, as a matrix {matrix:7,.0f} ms, {either / matrix:.2f} x"
        print(f"{words:8,} words of size {size:5,}: {times}")


if __name__ == "__main__":
    main()
