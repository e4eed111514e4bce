"""Load of this machine: for a line of the first page, and for scripts."""

import functools
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

__all__ = ["system"]

_GPU_FIELDS = "name,utilization.gpu,memory.used,memory.total"


def system(root: Path) -> dict[str, Any]:
    """Share of CPUs in use, bytes of memory and disk, and GPUs where nvidia-smi is."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(root))
    return {
        "cpus": psutil.cpu_count(),
        "cpu": psutil.cpu_percent(interval=None) / 100,
        "memory": {"used": memory.total - memory.available, "total": memory.total},
        "disk": {"free": disk.free, "total": disk.total},
        "gpus": _gpus(int(time.time() // 5)),
    }


@functools.lru_cache(maxsize=1)
def _gpus(moment: int) -> list[dict[str, Any]]:
    """GPUs by nvidia-smi, asked at most every five seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=3, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [found for line in done.stdout.splitlines() if (found := _gpu(line))]


def _gpu(line: str) -> dict[str, Any] | None:
    """A line of nvidia-smi. memory: None where the GPU shares the CPU's."""
    name, *texts = (part.strip() for part in line.rsplit(",", 3))
    load, *memory = (float(text) if text.isdecimal() else None for text in texts)
    if len(memory) != 2 or load is None:
        return None
    used, total = memory
    sizes = None
    if used is not None and total is not None:
        sizes = {"used": used * 2**20, "total": total * 2**20}
    return {"name": name, "load": load / 100, "memory": sizes}
