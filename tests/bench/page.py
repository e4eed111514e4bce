"""Tables of benchmarks in a page: `--write` replaces what stands between two comments there.

    <!-- serve -->
    …
    <!-- /serve -->

Each table has a line on the machine and the run above it.
"""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def write_table(page: str, name: str, how: str, lines: Sequence[str]) -> None:
    """Replace a table in a page, a path below the repository. how: what was run. lines: of the
    table, with its heading. Raises ValueError if the page has no such place."""
    path = ROOT / page
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, opened, rest = path.read_text("utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"{page} has no place <!-- {name} -->")
    said = f"`{how}` on {machine()}:"
    table = "\n".join([said, "", *lines])
    path.write_text(f"{before}{begin}{table}\n{end}{after}", "utf-8")


def machine() -> str:
    """The processor, and what else ran on it."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith("model name")
    ]
    cores, load = len(names), os.getloadavg()[1]
    level = torch.backends.cpu.get_cpu_capability()
    return (
        f"{cores} cores ({names[0]}, {level}) with a load of {load:.1f}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
