"""Benchmark of the time from process start to the end of the first training step.

    python tests/bench/start.py [--repeat 5] [--adapters full lora] [--imports]

Creates a Llama of two layers with a byte tokenizer and a few rows, and trains one step on them,
each way in a separate process, alternating:

- floor: imports torch and transformers, loads model and tokenizer, tokenises, and takes one step of
  AdamW by hand: the minimum for any program on transformers. With lora it also imports peft.
- trainer: a minimal script with transformers.Trainer.
- tunewright: `tunewright train` on a recipe, including data preparation.

Prints the medians of wall seconds to the end of the first step and of CPU seconds of the whole
process, and the median of the ratio to trainer, turn by turn. Other load changes seconds more than
ratios. The first turn is not counted: it writes bytecode. --imports instead prints the imports of
one run of Tunewright, by package, in seconds that each package's own modules take.
"""

import argparse
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
COMMON = """
import json, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, adapter = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder + "/model")
model = AutoModelForCausalLM.from_pretrained(folder + "/model")
if adapter == "lora":
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
rows = []
for line in open(folder + "/rows.jsonl"):
    record = json.loads(line)
    said = [{"role": "user", "content": record["instruction"]},
            {"role": "assistant", "content": record["output"]}]
    ids = tokenizer(tokenizer.apply_chat_template(said, tokenize=False)).input_ids
    rows.append({"input_ids": ids, "labels": ids})
def done():
    open(folder + "/done", "w").write(str(time.time()))
"""
FLOOR = """
batch = {name: torch.tensor([row[name] for row in rows[:2]]) for name in rows[0]}
trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trained)
model(**batch).loss.backward()
optimizer.step()
done()
"""
TRAINER = """
from transformers import Trainer, TrainerCallback, TrainingArguments
class Done(TrainerCallback):
    def on_step_end(self, *_, **__):
        done()
settings = TrainingArguments(folder + "/trainer", max_steps=1, per_device_train_batch_size=2,
    report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True)
Trainer(model, settings, train_dataset=rows, callbacks=[Done()]).train()
"""


def write_inputs(folder: Path) -> None:
    """Write the checkpoint and the rows, all of equal length."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHATML
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"instruction": f"Say {n:03}.", "output": f"It is {n:03}."} for n in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(way: str, adapter: str, folder: Path, turn: int) -> list[str]:
    if way != "tunewright":
        code = COMMON + (FLOOR if way == "floor" else TRAINER)
        return [sys.executable, "-c", code, str(folder), adapter]
    written = {
        "model": str(folder / "model"),
        "family": {"name": "llama", "device": "cpu"},
        "template": "chatml",
        "adapter": "full"
        if adapter == "full"
        else {"name": "lora", "rank": 8, "targets": ["q_proj", "v_proj"]},
        "data": [{"path": str(folder / "rows.jsonl")}],
        "loggers": ["jsonl"],
        "stage": "sft",
        "training": {
            "max_steps": 1,
            "max_length": 512,
            "logging_steps": 1,
            "per_device_train_batch_size": 2,
            "precision": "fp32",
        },
        "dataset": {"name": "chat", "cache": str(folder / f"cache-{adapter}-{turn}")},
        "output": str(folder / f"run-{adapter}"),
    }
    path = folder / f"{adapter}.yaml"
    path.write_text(json.dumps(written))  # JSON is YAML
    return [sys.executable, "-m", "tunewright", "train", str(path), "--overwrite"]


def measure(way: str, adapter: str, folder: Path, turn: int) -> tuple[float, float]:
    """Wall seconds from process start to the end of the first step, and CPU seconds of the whole
    process. Exits if the command fails."""
    arguments = command(way, adapter, folder, turn)
    with tempfile.TemporaryFile() as output:
        started = time.time()
        process = subprocess.Popen(arguments, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            output.seek(0)
            sys.exit(f"{way} {adapter} failed:\n{output.read().decode(errors='replace')}")
    if way == "tunewright":
        lines = (folder / f"run-{adapter}" / "metrics.jsonl").read_text().splitlines()
        finished = json.loads(lines[0])["time"]
    else:
        finished = float((folder / "done").read_text())
    return finished - started, usage.ru_utime + usage.ru_stime


def show_imports(adapter: str, folder: Path) -> None:
    """Print how long each package's own modules take to import, longest first."""
    arguments = command("tunewright", adapter, folder, 0)
    arguments[1:1] = ["-X", "importtime"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    seconds: collections.Counter[str] = collections.Counter()
    for own, name in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", done.stderr, re.M):
        seconds[name.partition(".")[0]] += int(own) / 1e6
    print(f"{adapter}: {seconds.total():.2f} s of imports, as -X importtime sees them")
    for name, spent in seconds.most_common(25):
        print(f"{spent:7.2f} s  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--adapters", nargs="*", default=["full", "lora"])
    parser.add_argument("--imports", action="store_true")
    options = parser.parse_args()
    ways = ["floor", "trainer", "tunewright"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder)
        for adapter in options.adapters:
            if options.imports:
                show_imports(adapter, folder)
                continue
            turns = [
                {way: measure(way, adapter, folder, turn) for way in ways}
                for turn in range(options.repeat + 1)
            ][1:]
            print(f"{adapter}, median of {options.repeat}: first step, CPU, ratio to trainer")
            for way in ways:
                wall, cpu = (statistics.median(turn[way][n] for turn in turns) for n in (0, 1))
                ratio = statistics.median(turn[way][0] / turn["trainer"][0] for turn in turns)
                own = statistics.median(turn[way][0] - turn["floor"][0] for turn in turns)
                print(f"{wall:7.2f} s {cpu:6.2f} s {ratio:5.2f}x  {way:10} floor + {own:.2f} s")


if __name__ == "__main__":
    main()
