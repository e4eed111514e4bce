"""Train each optimizer with each adapter and each accelerator, and write what came of it to
support_cells.json, from which support_page.py makes tables.

    python scripts/support_runs.py [--all | --check] [PLUGIN …]

Only cells are run of which a plugin has changed since, which failed, or which name one of the
PLUGINs. --check trains none: it finds what `recipe check` refuses, in seconds. --all runs all,
which takes about 15 minutes on one core. A cell is two steps of a tiny model on the CPU, in
processes of its own: two for accelerators that shard or split.
"""

import hashlib
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from tunewright import check, registry
from tunewright.errors import RecipeError, TunewrightError
from tunewright.source import RecipeProblems

ROOT = Path(__file__).resolve().parents[1]
CELLS = Path(__file__).with_name("support_cells.json")
LIMIT = 600  # seconds for one cell: it has hung then
#: accelerators whose kernels need a GPU
ON_A_GPU = ("flash_attention", "liger")
#: plugin → options that suit a tiny model, or a machine without a GPU
OPTIONS: dict[str, dict[str, Any]] = {
    "activation_offload": {"offload_to": "disk"},
    "compile": {"backend": "eager"},
    "rope_scaling": {"factor": 2},
    "apollo": {"rank": 4},
    "galore": {"rank": 4},
    "fourierft": {"frequencies": 50},
    "lora": {"rank": 4},
    "miss": {"rank": 4},
    "llama_pro": {"new_layers": 1},
    "oft": {"block_size": 8},
    "boft": {"block_size": 4},
    "trainable_tokens": {"tokens": ["a", "e"]},
}
#: optimizer → fields of `training` that it asks for
TRAINING: dict[str, dict[str, Any]] = {
    "prodigy": {"learning_rate": 1.0, "lr_scheduler_type": "constant"},
    "schedule_free": {"lr_scheduler_type": "constant"},
}
#: tried with accelerators: what acts in a way of its own. Others are like lora and adamw
ADAPTERS = ("adalora", "full", "lisa", "llama_pro", "lora", "prefix_tuning", "prompt_tuning")
OPTIMIZERS = ("adafactor", "adamw", "badam", "galore", "lomo", "muon", "schedule_free")
RUNS, REFUSED, FAILS, NOT_RUN = "runs", "refused", "fails", "not run here"
BY_SHAPES = "refused by shapes"  # by a RecipeError once the model is loaded


def names(kind: str) -> list[str]:
    return sorted(entry.name for entry in registry.entries(kind))


def pairs() -> list[tuple[str, str, str, str]]:
    """(kind, name, kind, name) of each cell."""
    adapters, optimizers, accelerators = map(names, ("adapter", "optimizer", "accelerator"))
    return [
        *(("optimizer", one, "adapter", other) for one, other in product(optimizers, adapters)),
        *(("accelerator", one, "adapter", other) for one, other in product(accelerators, ADAPTERS)),
        *(
            ("accelerator", one, "optimizer", other)
            for one, other in product(accelerators, OPTIMIZERS)
        ),
        *(
            ("accelerator", one, "accelerator", other)
            for one, other in product(accelerators, accelerators)
            if one < other
        ),
    ]


def processes(cell: tuple[str, ...]) -> int:
    chosen = [
        name for kind, name in zip(cell[::2], cell[1::2], strict=True) if kind == "accelerator"
    ]
    plugins = [registry.load(registry.find("accelerator", name)) for name in chosen]
    return 2 if any(plugin.needs_processes for plugin in plugins) else 1


def recipe(cell: tuple[str, ...], folder: Path, checkpoint: Path) -> dict[str, Any]:
    """The recipe of a cell. checkpoint: a tiny mixture of experts."""
    training = {"max_steps": 2, "precision": "fp32", "per_device_train_batch_size": 2}
    made: dict[str, Any] = {
        "model": "tiny",
        "family": {"name": "qwen", "device": "cpu", "tiny_hidden_size": 32, "tiny_layers": 4},
        "template": "chatml",
        "stage": "sft",
        "data": [{"path": str(ROOT / "docs/examples/data/wren.jsonl")}],
        "training": training | {"max_length": 64, "logging_steps": 1},
        "loggers": [],
        "accelerators": [],
        "launch": {"processes": processes(cell)},
        "output": str(folder / "run"),
    }
    for kind, name in zip(cell[::2], cell[1::2], strict=True):
        section = {"name": name, **OPTIONS.get(name, {})}
        if kind == "accelerator":
            made["accelerators"].append(section)
        else:
            made[kind] = section
        made["training"] |= TRAINING.get(name, {})
        if name == "expert_parallel":
            made["model"] = str(checkpoint)
        plugin = registry.load(registry.find(kind, name))
        if getattr(plugin, "steps_in_backward", False):
            made["training"]["max_grad_norm"] = 0
    return made


def run(cell: tuple[str, ...], checkpoint: Path, trains: bool) -> dict[str, str]:
    """Result of a cell, and the reason where it does not run. Empty: it is not refused, and was not
    to be trained."""
    if lacking := [name for name in cell if name in ON_A_GPU]:
        return {"result": NOT_RUN, "reason": f"{lacking[0]} needs a GPU"}
    with tempfile.TemporaryDirectory() as temporary:
        asked = recipe(cell, Path(temporary), checkpoint)
        try:
            check.resolve(asked)
        except RecipeProblems as refused:
            problems = [each.message for each in refused.problems]
            return {"result": REFUSED, "reason": problems[0]}
        if not trains:
            return {}
        count, queue = processes(cell), CONTEXT.Queue()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        workers = [
            CONTEXT.Process(target=_train, args=(asked, rank, count, port, queue))
            for rank in range(count)
        ]
        for each in workers:
            each.start()
        ended = _ended(workers)
        if not queue.empty():
            result, reason = queue.get()
            return {"result": result, "reason": reason}
        if ended and not any(each.exitcode for each in workers):
            return {"result": RUNS}
        return {"result": FAILS, "reason": "a process died" if ended else f"ended after {LIMIT} s"}


def _ended(workers: list[Any]) -> bool:
    """Wait for all; end the others when one has failed, and all after LIMIT."""
    deadline = time.monotonic() + LIMIT
    while any(each.is_alive() for each in workers):
        failed = any(each.exitcode for each in workers)
        if failed or time.monotonic() > deadline:
            time.sleep(0.5)
            for each in workers:
                each.kill()
                each.join()
            return failed
        time.sleep(0.02)
    return True


def _train(asked: dict[str, Any], rank: int, count: int, port: int, queue: Any) -> None:
    import torch

    from tunewright.run import train

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if count > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    try:
        train(asked)
    except (Exception, SystemExit) as error:  # whatever it is, it goes into the table
        kind = "" if isinstance(error, TunewrightError) else f"{type(error).__name__}: "
        said = f"{kind}{' '.join(str(error).split())[:300]}".removeprefix("recipe: ")
        queue.put((BY_SHAPES if isinstance(error, RecipeError) else FAILS, said))
        queue.close()
        queue.join_thread()
        os._exit(1)
    os._exit(0)  # no wait for process groups


def fingerprint(cell: tuple[str, ...]) -> str:
    """Of the source of the cell's plugins."""
    found = hashlib.sha256()
    for kind, name in zip(cell[::2], cell[1::2], strict=True):
        plugin = registry.load(registry.find(kind, name))
        folder = Path(sys.modules[plugin.__module__].__file__ or "").parent
        for path in sorted(folder.rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def save_checkpoint(folder: Path) -> None:
    from tunewright.run import Run

    asked = recipe(("adapter", "full"), folder, folder)
    asked["family"]["tiny_variant"] = "qwen3_moe"
    loaded = Run(check.resolve(asked)).load(trainable=False)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def main() -> None:
    again = set(sys.argv[1:])
    trains = "--check" not in again
    kept = json.loads(CELLS.read_text("utf-8")) if CELLS.is_file() else {}
    made: dict[str, Any] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        if trains:
            _prepare(Path(temporary))
        for cell in pairs():
            key, now = " ".join(cell), fingerprint(cell)
            before = kept.get(key, {})
            stale = before.get("of") != now or before["result"] == FAILS
            if stale or "--all" in again or again & set(cell):
                found = run(cell, Path(temporary), trains)
                if found:
                    made[key] = {**found, "of": now}
                    seconds = time.monotonic() - began
                    print(f"{seconds:5.0f} s  {key}: {found['result']}", flush=True)
                    _write(kept | made)
            else:
                made[key] = before
    _write(made)


def _prepare(checkpoint: Path) -> None:
    """Import what cells need, once before they are forked, and save a checkpoint."""
    import peft  # noqa: F401
    import torch

    import tunewright_hf.training.causal_lm  # noqa: F401

    torch.set_num_threads(1)
    save_checkpoint(checkpoint)


def _write(cells: dict[str, Any]) -> None:
    text = json.dumps(cells, indent=0, sort_keys=True, ensure_ascii=False)
    CELLS.write_text(text + "\n", "utf-8")


CONTEXT: Any = multiprocessing.get_context("fork")

if __name__ == "__main__":
    main()
