"""Benchmark of the engine hf on a CPU: many answers at once against transformers' generate.

    python tests/bench/serve.py [--model tiny small] [--requests 8 32] [--repeats 5] [--write]

Greedy answers of 32 tokens to prompts of 129, in one process, one thread. In each repetition the
modes run in turns: sequential `generate` (of eight prompts), `generate` on one static batch,
transformers' continuous batching (its start is not counted), and the scheduler with as many slots
as requests. Their order is random (and the same in every run): a mode finds caches and memory as
the one before it left them. Prints a table in Markdown: tokens per CPU-second as multiples of
sequential `generate`, and of the scheduler as a multiple of the static batch: medians of the ratios
within each repetition, so that other load moves both sides. The last column is the median CPU time
to the first token over the time to the last, when all requests come at once. --write puts the table
into docs/decisions/0012-slot-scheduler.md. Fails if the modes do not give the same tokens, or if a
goal is missed:

    tiny model (0.2 M parameters): 4 times sequential at 8 requests, 10 times at 32
    small model (19 M):            3 times at 8
    at 32: 95 % of the static batch, and ahead of continuous batching
    first token within 1/5 of the answer's time

tests/bench/serve_peer.py measures LLaMA-Factory's server beside ours.
"""

import argparse
import copy
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from page import write_table
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from tunewright_hf.inference.rows import Row
from tunewright_hf.inference.scheduler import Scheduler

PAGE = "docs/decisions/0012-slot-scheduler.md"
PROMPT, ANSWER = 129, 32
MODELS: dict[str, dict[str, int]] = {
    "tiny": {
        "vocab_size": 1026,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "small": {
        "vocab_size": 32_000,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
#: (model, requests) → least ratio to sequential generate
GOALS = {("tiny", 8): 4.0, ("tiny", 32): 10.0, ("small", 8): 3.0}
SIZES = {"tiny": "0.2 M parameters", "small": "19 M parameters"}
HEADING = """\
| model | requests | static | continuous | scheduler | scheduler, of static | first token |
|---|---|---|---|---|---|---|"""
Tokens = list[list[int]]


def built(name: str) -> Any:
    torch.manual_seed(0)
    more = {"max_position_embeddings": 2048, "initializer_range": 0.2}
    config = LlamaConfig(bos_token_id=None, eos_token_id=None, **MODELS[name] | more)
    return LlamaForCausalLM(config).eval()


def generated(model: Any, prompts: Tokens) -> Tokens:
    ids = torch.tensor(prompts)
    config = GenerationConfig(max_new_tokens=ANSWER, do_sample=False, pad_token_id=0)
    found = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
    )
    answers: Tokens = found[:, PROMPT:].tolist()
    return answers


# A mode returns the tokens, the CPU seconds, and the median time to the first token over the time
# to the last.


def sequential(model: Any, prompts: Tokens) -> tuple[Tokens, float, float]:
    started = time.process_time()
    found = [generated(model, [prompt])[0] for prompt in prompts]
    return found, time.process_time() - started, 1.0


def static(model: Any, prompts: Tokens) -> tuple[Tokens, float, float]:
    started = time.process_time()
    return generated(model, prompts), time.process_time() - started, 1.0


def continuous(model: Any, prompts: Tokens) -> tuple[Tokens, float, float]:
    """With the settings that were found best for a CPU (pages of 64 columns, no shared blocks)."""
    own = copy.deepcopy(model)  # a manager changes its model's attention
    config = ContinuousBatchingConfig(
        page_size=64,
        num_blocks=4 * len(prompts),
        max_batch_tokens=1024,
        allow_block_sharing=False,
        auto_switch_to_flash=False,
    )
    wanted = GenerationConfig(
        max_new_tokens=ANSWER, do_sample=False, pad_token_id=0, eos_token_id=-1
    )
    manager = own.init_continuous_batching(wanted, config)
    manager.start()
    try:
        manager.add_request(prompts[0], max_new_tokens=2)
        assert manager.get_result(timeout=60)
        started = time.process_time()
        names = [manager.add_request(prompt, max_new_tokens=ANSWER) for prompt in prompts]
        found: dict[Any, list[int]] = {}
        while len(found) < len(prompts):
            result = manager.get_result(timeout=120)
            assert result is not None and result.error is None, result
            found[result.request_id] = list(result.generated_tokens)
        seconds = time.process_time() - started
    finally:
        manager.stop(block=True)
    return [found[name] for name in names], seconds, 1.0


def scheduled(model: Any, prompts: Tokens) -> tuple[Tokens, float, float]:
    """The scheduler is there before the requests, as in an engine."""
    scheduler = Scheduler(model, slots=len(prompts))
    started = time.process_time()
    first: list[float] = []

    def heard(row: Row, token: int, score: Any) -> bool:
        if len(row.tokens) == 1:
            first.append(time.process_time() - started)
        return True

    rows = [Row(prompt, ANSWER, on_token=heard) for prompt in prompts]
    scheduler.add(rows)
    scheduler.run()
    share = statistics.median(first) / (time.process_time() - started)
    return [row.tokens for row in rows], time.process_time() - started, share


def measure(name: str, requests: int, repeats: int) -> tuple[str, list[str]]:
    """Row of one model in the table, and the goals that were missed."""
    model = built(name)
    generator = torch.Generator().manual_seed(1)
    size = MODELS[name]["vocab_size"]
    prompts = torch.randint(0, size, (requests, PROMPT), generator=generator).tolist()
    modes: dict[str, Callable[[Any, Tokens], tuple[Tokens, float, float]]] = {
        "sequential": lambda model, prompts: sequential(model, prompts[:8]),
        "static": static,
        "continuous": continuous,
        "scheduler": scheduled,
    }
    turns = []
    with torch.inference_mode():
        scheduled(model, prompts)  # the first of a process is slower
        for repeat in range(repeats):
            order = random.Random(repeat).sample(list(modes), len(modes))
            found = {mode: modes[mode](model, prompts) for mode in order}
            expected = found["static"][0]
            for tokens, _, _ in found.values():
                assert tokens == expected[: len(tokens)], "the tokens differ"
            rates = {m: len(tokens) / seconds for m, (tokens, seconds, _) in found.items()}
            turns.append(rates | {"first": found["scheduler"][2]})
    times = {
        mode: statistics.median(turn[mode] / turn["sequential"] for turn in turns)
        for mode in ("static", "continuous", "scheduler")
    }
    of_static = statistics.median(turn["scheduler"] / turn["static"] for turn in turns)
    first = statistics.median(turn["first"] for turn in turns)
    numbers = [f"{times[mode]:.1f}" for mode in times]
    cells = [SIZES[name], str(requests), *numbers, f"{of_static:.2f}", f"{first:.2f}"]
    return f"| {' | '.join(cells)} |", missed(name, requests, times, of_static, first)


def missed(
    name: str, requests: int, times: dict[str, float], of_static: float, first: float
) -> list[str]:
    goals = {
        f"below {GOALS.get((name, requests))} x sequential": times["scheduler"]
        < GOALS.get((name, requests), 0.0),
        "below 95 % of the static batch": requests == 32 and of_static < 0.95,
        "not ahead of continuous batching": requests == 32
        and times["scheduler"] <= times["continuous"],
        f"first token after {first:.2f} of the time": first > 0.2,
    }
    return [
        f"{name}, {requests} requests: {goal}" for goal, is_missed in goals.items() if is_missed
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--requests", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into its page")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table, goals = HEADING.splitlines(), []
    print(HEADING)
    for name in asked.model:
        for requests in asked.requests:
            row, found = measure(name, requests, asked.repeats)
            print(row, flush=True)
            table.append(row)
            goals += found
    if asked.write:
        write_table(PAGE, "serve", f"python tests/bench/serve.py --repeats {asked.repeats}", table)
    for goal in goals:
        print(f"missed: {goal}", file=sys.stderr)
    return 1 if goals else 0


if __name__ == "__main__":
    sys.exit(main())
