"""Processes that are forked from one which has imported torch and the trainers: imports take ten
seconds, and most scripts that tests run on several processes take two. `launch` itself goes through
torchrun, in tests of its own.
"""

import gc
import multiprocessing
import os
import runpy
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

PRELOAD = [
    "tunewright_hf.training.causal_lm",
    "tunewright_hf.training.preference",
    "tunewright_hf.models.loading",
    "tunewright_dataset_chat.build",
    "peft",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen3.modeling_qwen3",
]
CONTEXT: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
if hasattr(os, "fork"):
    CONTEXT.set_forkserver_preload(PRELOAD)


@dataclass
class Done:
    """Result of the processes: exit codes (negative: killed by that signal), and the output of
    all."""

    codes: list[int]
    output: str
    error: str


def run(
    script: Path,
    *arguments: str,
    processes: int = 1,
    timeout: float = 500,
    patience: float = 0,
    address: str = "127.0.0.1",
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Done:
    """Run a script, with the variables of torchrun where it is to have several processes. When one
    of them fails, the others are ended after `patience` seconds. address: of rank 0. variables: in
    place of torchrun's, on all ranks."""
    folder = Path(os.environ["TUNEWRIGHT_CACHE"]).parent / f"forked-{time.monotonic_ns()}"
    folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if processes > 1:
        environment |= {
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": address,
            "MASTER_PORT": str(free_port()),
        }
    made = [
        CONTEXT.Process(
            target=_main, args=(script, arguments, folder, environment, rank, dict(variables))
        )
        for rank in range(processes)
    ]
    for process in made:
        process.start()
    deadline = time.monotonic() + timeout
    try:
        while any(each.is_alive() for each in made):
            if any(each.exitcode for each in made):
                deadline = min(deadline, time.monotonic() + patience)
                if time.monotonic() >= deadline:
                    break
            assert time.monotonic() < deadline, f"{script.name} takes longer than {timeout} s"
            time.sleep(0.02)
    finally:
        for each in made:
            each.terminate()
            each.join()
    output, error = (
        "".join(file.read_text() for file in sorted(folder.glob(f"*.{name}")))
        for name in ("out", "err")
    )
    return Done([each.exitcode for each in made], output, error)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _main(
    script: Path,
    arguments: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    rank: int,
    variables: dict[str, str],
) -> None:
    """Be the process that `python script arguments` would be."""
    gc.freeze()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    if "WORLD_SIZE" in environment:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=environment["WORLD_SIZE"]
        )
    os.environ.update(variables)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
