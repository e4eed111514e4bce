"""Benchmark of training: speed, memory, and time to the first step.

    python tests/bench/train.py [--steps 20] [--rows 2000] [--precision fp32] [--adapters full lora]
                                [--batching random token_budget packed] [--keep FOLDER]

Creates a Llama of 19 M parameters with random weights (hidden size 256, 4 layers, vocabulary
32,000) and synthetic conversations of log-normal length, and runs `tunewright train` on them, each
way in a separate process. Prints real tokens per second (without padding) from the third step on,
the share of padding, the peak resident memory of the process, the seconds from its start to the end
of the first step, and those of its imports alone. `random` is shuffled batches of --batch rows; the
others hold as many tokens on average.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from synthetic import VOCABULARY, Writer, train_tokenizer

MAX_LENGTH = 2048
IMPORTS = "import tunewright_hf.training.causal_lm, tunewright_dataset_chat.build, peft"


def write_rows(path: Path, rows: int) -> None:
    """Write alpaca-like records; the answer's length in words is log-normal, with a tail up to
    max_length."""
    writer = Writer()
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            words = min(1100, max(2, int(writer.random.lognormvariate(0, 0.9) * 75)))
            record = {
                "instruction": writer.text(writer.length(18)),
                "input": "",
                "output": writer.text(words),
            }
            file.write(json.dumps(record) + "\n")


def write_model(folder: Path) -> int:
    """Write the checkpoint. Returns its number of parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    train_tokenizer(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    config = LlamaConfig(
        vocab_size=max(VOCABULARY, len(tokenizer)),
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return sum(parameter.numel() for parameter in model.parameters())


def recipe(options: argparse.Namespace, folder: Path, adapter: str, batching: str) -> Path:
    training: dict[str, Any] = {
        "learning_rate": 1e-4,
        "max_steps": options.steps,
        "logging_steps": 1,
        "max_length": MAX_LENGTH,
        "per_device_train_batch_size": options.batch,
        "precision": options.precision,
    }
    if batching == "packed":
        training |= {"per_device_train_batch_size": 1}
    else:
        training |= {"batching": batching}
    written = {
        "model": str(folder / "model"),
        "family": {"name": "llama", "device": "cpu"},
        "template": "chatml",
        "adapter": adapter,
        "data": [{"path": str(folder / "rows.jsonl")}],
        "loggers": ["jsonl"],
        "stage": {"name": "sft", "packing": batching == "packed"},
        "training": training,
        "dataset": {"name": "chat", "cache": str(folder / "cache")},
        "output": str(folder / "runs" / f"{adapter}-{batching}"),
    }
    path = folder / f"{adapter}-{batching}.yaml"
    path.write_text(json.dumps(written))  # JSON is YAML
    return path


def padding(folder: Path, options: argparse.Namespace, batching: str) -> float:
    """Share of padding in the batches of the first epoch."""
    from tunewright.recipe import Training
    from tunewright_hf.batching.batch_sampler import Batches

    lengths = json.loads((folder / "lengths.json").read_text())
    if batching == "packed":
        return 0.0
    training = Training(
        per_device_train_batch_size=options.batch, batching=batching, max_length=MAX_LENGTH
    )  # type: ignore[arg-type]
    computed = sum(
        max(lengths[row] for row in rows) * len(rows) for rows in Batches(lengths, training)
    )
    return 1 - sum(lengths) / computed


def measure(path: Path, run: Path) -> tuple[float, float, float]:
    """Tokens per second, peak memory in MB, and seconds to the end of the first step."""
    started = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "tunewright", "train", str(path), "--overwrite"]
    )
    memory = waited(process, path.name)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first, second, last = lines[0], lines[1], lines[-1]
    rate = (last["tokens"] - second["tokens"]) / (last["time"] - second["time"])
    return rate, memory, first["time"] - started


def waited(process: subprocess.Popen, name: str) -> float:
    """Wait for a process to end well. Returns its peak resident memory in MB."""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name} failed")
    return usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def gflops() -> float:
    """Floating-point operations per second (1e9) of a product of large square matrices: an upper
    bound for training."""
    import torch

    size = 2048
    one, other = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(12):
        started = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times) / 1e9


def lengths_of(folder: Path, path: Path) -> None:
    """Write the lengths of the prepared rows; training then finds the rows in the cache."""
    from tunewright.check import resolve
    from tunewright.run import Run
    from tunewright_hf.batching.batch_sampler import row_lengths

    run = Run(resolve(path))
    data = run.call("dataset", "build_dataset", run.data_request(run.load(weights="none")))
    (folder / "lengths.json").write_text(json.dumps(row_lengths(data.train).tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="fp32")
    parser.add_argument("--adapters", nargs="*", default=["full", "lora"])
    parser.add_argument("--batching", nargs="*", default=["random", "token_budget", "packed"])
    parser.add_argument("--keep", help="folder for all that is made, which is then there again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / "rows.jsonl", options.rows)
        parameters = write_model(folder)
        lengths_of(folder, recipe(options, folder, options.adapters[0], options.batching[0]))
        lengths = sorted(json.loads((folder / "lengths.json").read_text()))
        started = time.perf_counter()
        held = waited(subprocess.Popen([sys.executable, "-c", IMPORTS]), "importing")
        imports = time.perf_counter() - started
        middle = lengths[len(lengths) // 2]
        print(
            f"{parameters / 1e6:.1f} M parameters, {len(lengths)} rows, median "
            f"{middle} tokens, longest {lengths[-1]}"
        )
        print(
            f"{os.cpu_count()} cores, {options.precision}, imports alone "
            f"{imports:.1f} s and {held:,.0f} MB"
        )
        print(f"products of square matrices: {gflops():,.0f} GFLOP/s in fp32")
        for adapter in options.adapters:
            for batching in options.batching:
                path = recipe(options, folder, adapter, batching)
                rate, memory, first = measure(path, folder / "runs" / f"{adapter}-{batching}")
                share = 100 * padding(folder, options, batching)
                print(
                    f"{adapter:5} {batching:13} {rate:7,.0f} tokens/s  padding "
                    f"{share:4.1f} %  {memory:6,.0f} MB  "
                    f"first step after {first:5.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
