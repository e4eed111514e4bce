"""All stages, one after the other in one recipe, under `launch` with two gloo processes: what
is reported is what one process reports that takes the rows of both."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matrix import stages

from forked import free_port
from tunewright.run import train

WORDS = ["wren", "sings", "nest", "a", "small", "bird", "moss"]
ASKED = [f"What {word}?" for word in WORDS + WORDS[:1]]
ANSWERS = [" ".join(WORDS[number % 5 : number % 5 + 2 + number % 3]) for number in range(8)]
BOTH = list(zip(ASKED, ANSWERS, strict=True))
ROWS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": text} for text in ANSWERS],
    "messages": [
        {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": text}]}
        for ask, text in BOTH
    ],
    "preference": [{"prompt": ask, "chosen": text, "rejected": text[::-1]} for ask, text in BOTH],
    "unpaired": [
        {"prompt": ask, "completion": text, "label": number % 2 == 0}
        for number, (ask, text) in enumerate(BOTH)
    ],
    "prompts": [{"prompt": ask} for ask in ASKED],
    "labelled": [{"text": text, "label": str(n % 2)} for n, text in enumerate(ANSWERS)],
    "retrieval": [{"query": ask, "positive": text, "negative": text[::-1]} for ask, text in BOTH],
    "ranked": [
        {"prompt": ask, "chosen": text, "rejected": [text[::-1], ask]} for ask, text in BOTH
    ],
    "stepwise": [
        {"prompt": ask, "completions": [text, text[::-1]], "labels": [True, False]}
        for ask, text in BOTH
    ],
}
#: the reward model of the stage before is asked by ppo, on each process
ORDER = {
    "pretrain": {},
    "sft": {},
    "dpo": {"sft_weight": 0.5},
    "kto": {},
    "orpo": {},
    "simpo": {},
    "cpo": {},
    "embed": {},
    "classify": {"labels": ["even", "odd"]},
    "rerank": {},
    "listwise_dpo": {},
    "prm": {},
    "distill": {"teacher": "tiny", "nll_weight": 1.0},
    "grpo": {
        "rewards": [{"name": "length", "target": 12}],
        "num_generations": 3,
        "max_new_tokens": 4,
        "beta": 0.1,
    },
    "online_dpo": {"rewards": [{"name": "length", "target": 12}], "max_new_tokens": 4},
    "reward": {},
    "ppo": {"rewards": ["reward_model"], "max_new_tokens": 4, "ppo_epochs": 2, "kl_target": 0.1},
}
NOT_EQUAL = ("time", "tokens_per_second", "memory")


def recipe(folder: Path, adapter: dict[str, Any]) -> Path:
    for sort, records in ROWS.items():
        (folder / f"{sort}.jsonl").write_text(
            "".join(f"{json.dumps(each)}\n" for each in records), "utf-8"
        )
    found = stages()
    assert found.keys() == ORDER.keys()
    written = {
        "model": "tiny",
        "family": {"name": "llama", "device": "cpu", "tiny_hidden_size": 16, "tiny_layers": 1},
        "adapter": adapter,
        "output": "unset",
        "loggers": ["jsonl"],
        "stages": [
            {"name": name, **options, "data": [{"path": str(folder / f"{found[name].rows}.jsonl")}]}
            for name, options in ORDER.items()
        ],
        "training": {
            "max_steps": 2,
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "batching": "random",
            "max_length": 64,
            "precision": "fp32",
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(written), "utf-8")
    return folder / "recipe.yaml"


def logged(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{name: each for name, each in line.items() if name not in NOT_EQUAL} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", pytest.param("lora", marks=pytest.mark.long)])
def test_two_processes_give_what_one_gives(tmp_path, adapter):
    written = recipe(tmp_path, {"name": adapter})
    one = [f"output={tmp_path / 'one'}", "training.per_device_train_batch_size=4"]
    train(written, overrides=one)
    two = [
        "training.per_device_train_batch_size=2",
        "launch.processes=2",
        f"launch.main_port={free_port()}",
    ]
    command = [
        sys.executable,
        "-m",
        "tunewright",
        "train",
        str(written),
        f"output={tmp_path / 'two'}",
        *two,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    one, found = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert [(line["stage"], line["step"]) for line in found] == [
        (name, step) for name in ORDER for step in (1, 2)
    ]
    for left, right in zip(found, one, strict=True):
        assert left.pop("stage") == right.pop("stage")
        assert left == pytest.approx(right, rel=1e-3, abs=1e-4)
