"""Benchmark of the engine hf on a CPU: many answers at once against transformers' generate.

    python tests/bench/serve.py [--model tiny small] [--requests 8 32]

Greedy answers of 32 tokens to prompts of 129, in one process, one thread, the modes in turns:
sequential `generate`, `generate` on one static batch, transformers' continuous batching (its start
is not counted), and the scheduler with as many slots as requests. Prints tokens per CPU-second and
the ratio to sequential `generate`; and, when all requests come at once, the median time to the
first token over the time to the last. Fails if the
modes do not give the same tokens, or if a goal is missed:

    tiny model (0.2 M parameters): 4 times sequential at 8 requests, 10 times at 32
    small model (19 M):            3 times at 8
    at 32: 95 % of the static batch, and ahead of continuous batching
    first token within 1/5 of the answer's time
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from tunewright_hf.inference.rows import Row
from tunewright_hf.inference.scheduler import Scheduler

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
    started = time.process_time()
    begun, first = time.perf_counter(), []

    def heard(row: Row, token: int, score: Any) -> bool:
        if len(row.tokens) == 1:
            first.append(time.perf_counter() - begun)
        return True

    rows = [Row(prompt, ANSWER, on_token=heard) for prompt in prompts]
    scheduler = Scheduler(model, slots=len(rows))
    scheduler.add(rows)
    scheduler.run()
    share = statistics.median(first) / (time.perf_counter() - begun)
    return [row.tokens for row in rows], time.process_time() - started, share


def measure(name: str, requests: int, repeats: int) -> list[str]:
    """Print the rates of one model; returns the goals that were missed."""
    model = built(name)
    generator = torch.Generator().manual_seed(1)
    size = MODELS[name]["vocab_size"]
    prompts = torch.randint(0, size, (requests, PROMPT), generator=generator).tolist()
    modes: dict[str, Callable[[Any, Tokens], tuple[Tokens, float, float]]] = {
        "sequential": sequential,
        "static": static,
        "continuous": continuous,
        "scheduler": scheduled,
    }
    found: dict[str, Tokens] = {}
    rates: dict[str, list[float]] = {mode: [] for mode in modes}
    shares = []
    with torch.inference_mode():
        for _ in range(repeats):
            for mode, run in modes.items():
                tokens, seconds, share = run(model, prompts)
                rates[mode].append(requests * ANSWER / seconds)
                found[mode] = tokens
                shares += [share] if mode == "scheduler" else []
    assert all(tokens == found["sequential"] for tokens in found.values()), "the tokens differ"
    best = {mode: max(values) for mode, values in rates.items()}
    for mode, rate in best.items():
        ratio = rate / best["sequential"]
        print(f"{name:5} {requests:3} {mode:10} {rate:7,.0f} tokens/CPU-s {ratio:6.1f} x")
    print(f"{name:5} {requests:3} first token after {min(shares):.2f} of the answer's time")
    missed = []
    if best["scheduler"] < GOALS.get((name, requests), 0.0) * best["sequential"]:
        missed.append(f"{name}, {requests} requests: below {GOALS[name, requests]} x sequential")
    if requests == 32 and best["scheduler"] < 0.95 * best["static"]:
        missed.append(f"{name}, {requests} requests: below 95 % of the static batch")
    if requests == 32 and best["scheduler"] <= best["continuous"]:
        missed.append(f"{name}, {requests} requests: not ahead of continuous batching")
    if min(shares) > 0.2:
        missed.append(f"{name}, {requests} requests: first token after {min(shares):.2f}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--requests", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    missed = []
    for name in asked.model:
        for requests in asked.requests:
            missed += measure(name, requests, asked.repeats)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
