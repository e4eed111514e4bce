"""Benchmark of torch.compile for a step of the engine hf on a CPU: what it would give at best.

    python tests/bench/serve_compile.py [--model tiny small] [--requests 32] [--steps 20] [--write]

One thread. A step computes one token of each row on a cache of fixed size, as compiling needs it
(transformers' StaticCache of 192 columns, 129 of them in use), eagerly and compiled for just this
shape; and, as the engine does it, eagerly on a cache that has the columns in use alone. In turns;
prints a table in Markdown: medians of CPU milliseconds a step, and the seconds that compiling took.
The engine's batch changes its shape with every row that joins or leaves, so it would have to pad or
to compile anew: this is the bound that it could come near. --write puts the table into
docs/decisions/0012-slot-scheduler.md.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from page import write_table
from transformers import DynamicCache, StaticCache

from serve import MODELS, PAGE, PROMPT, SIZES, built

COLUMNS = 192
HEADING = """\
| model | requests | eager, ms | eager, fixed, ms | compiled, fixed, ms | compiling, s |
|---|---|---|---|---|---|"""


def prefilled(model: Any, cache: Any, ids: torch.Tensor) -> Any:
    model(ids, past_key_values=cache, logits_to_keep=1)
    return cache


def cpu_ms(step: Callable[[], Any]) -> float:
    started = time.process_time()
    step()
    return 1000 * (time.process_time() - started)


def measure(name: str, requests: int, steps: int) -> str:
    """Row of one model."""
    model = built(name)
    ids = torch.randint(0, MODELS[name]["vocab_size"], (requests, PROMPT + 1))
    prompts, last = ids[:, :-1], ids[:, -1:]
    place = torch.full((requests, 1), PROMPT)
    fixed = prefilled(model, StaticCache(model.config, max_cache_len=COLUMNS), prompts)
    grown = prefilled(model, DynamicCache(config=model.config), prompts)
    mask = torch.zeros(requests, 1, 1, COLUMNS)
    mask[..., PROMPT + 1 :] = torch.finfo(torch.float32).min

    def once(forward: Any) -> Any:
        for layer in fixed.layers:  # the same column, again and again
            layer.cumulative_length.fill_(PROMPT)
        return forward(last, past_key_values=fixed, attention_mask=mask, position_ids=place).logits

    def as_it_is() -> Any:
        found = model(last, past_key_values=grown, position_ids=place).logits
        grown.crop(-1)
        return found

    compiled = torch.compile(model, dynamic=False)
    expected, began = as_it_is(), time.process_time()
    for way in (model, compiled):
        assert torch.allclose(once(way), expected, atol=1e-3, rtol=1e-3), "the logits differ"
    seconds = time.process_time() - began
    ways = (as_it_is, lambda: once(model), lambda: once(compiled))
    turns = [[cpu_ms(way) for way in ways] for _ in range(steps)]
    own, eager, quick = (statistics.median(each) for each in zip(*turns, strict=True))
    cells = [SIZES[name], str(requests), f"{own:.1f}", f"{eager:.1f}", f"{quick:.1f}"]
    return f"| {' | '.join(cells)} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the table into its page")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table = HEADING.splitlines()
    print(HEADING)
    with torch.inference_mode():
        for name in asked.model:
            table.append(measure(name, asked.requests, asked.steps))
            print(table[-1], flush=True)
    if asked.write:
        how = f"python tests/bench/serve_compile.py --steps {asked.steps}"
        write_table(PAGE, "serve_compile", how, table)


if __name__ == "__main__":
    main()
