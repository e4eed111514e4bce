"""Benchmark of LLaMA-Factory on the same model, rows and machine.

    python -m venv peer && peer/bin/pip install llamafactory
    python tests/bench/train.py --keep FOLDER
    python tests/bench/train_peer.py --keep FOLDER --command peer/bin/llamafactory-cli [--steps 20]
                                     [--adapters full lora]
                                     [--ways default batch2 neat_packing packing]

Reads the model and the rows that train.py left in FOLDER. `default` is LLaMA-Factory's batch size
of 8, `batch2` a batch size of 2, `packing` lets packed samples attend to each other, `neat_packing`
does not. Prints real tokens per second from the third step on, the peak resident memory, and the
seconds from process start to the end of the first step, as train.py does.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from train import MAX_LENGTH

WAYS = {
    "default": {"per_device_train_batch_size": 8},
    "batch2": {"per_device_train_batch_size": 2},
    "packing": {"per_device_train_batch_size": 1, "packing": True},
    "neat_packing": {"per_device_train_batch_size": 1, "packing": True, "neat_packing": True},
}


def write_recipe(folder: Path, adapter: str, way: str, steps: int) -> Path:
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.jsonl"}}))
    recipe = {
        "model_name_or_path": str(folder / "model"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": adapter,
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "chatml",
        "cutoff_len": MAX_LENGTH,
        "learning_rate": 1e-4,
        "max_steps": steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "output_dir": str(folder / "peer" / f"{adapter}-{way}"),
        "overwrite_output_dir": True,
        "use_cpu": True,
        "bf16": False,
        **WAYS[way],
        # packs hold no padding; and 0.9.5 counts none by their attention mask
        "include_num_input_tokens_seen": "all" if "packing" in WAYS[way] else "non_padding",
    }
    if adapter == "lora":
        recipe |= {"lora_rank": 8, "lora_target": "all"}
    path = folder / f"peer-{adapter}-{way}.yaml"
    path.write_text(json.dumps(recipe))
    return path


def measure(command: str, path: Path) -> tuple[float, float, float]:
    """Tokens per second, peak memory in MB, and seconds to the end of the first step."""
    started, steps = time.monotonic(), []
    environment = {**os.environ, "FORCE_TORCHRUN": "0", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [command, "train", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    said = []
    for line in process.stdout or ():
        said.append(line)
        if "'loss'" in line and (seen := re.search(r"'num_input_tokens_seen': '?(\d+)", line)):
            steps.append((time.monotonic(), int(seen[1])))
    _, status, usage = os.wait4(process.pid, 0)
    if status or len(steps) < 3:
        sys.exit("".join(said[-30:]) + f"{path.name} failed")
    (second, before), (last, tokens) = steps[1], steps[-1]
    memory = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return (tokens - before) / (last - second), memory, steps[0][0] - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", required=True, help="the folder that train.py kept")
    parser.add_argument(
        "--command", required=True, help="llamafactory-cli of an environment of its own"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--adapters", nargs="*", default=["full", "lora"])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    for adapter in options.adapters:
        for way in options.ways:
            path = write_recipe(Path(options.keep).absolute(), adapter, way, options.steps)
            rate, memory, first = measure(options.command, path)
            print(
                (
                    f"peer {adapter:5} {way:13} {rate:7,.0f} tokens/s  {memory:6,.0f} MB  "
                    f"first step after {first:.1f} s"
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
