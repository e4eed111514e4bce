"""Benchmark of commands that do not train, with many plugins installed.

    python tests/bench/startup.py [--plugins 60] [--repeat 5]

Puts N trivial plugin distributions (dist-info folders like pip's) into a temporary folder on
PYTHONPATH, beside what is installed. Prints the best of all runs: wall seconds, and CPU seconds
(user and system), which depend less on other load; then the ratio of the latter to `python -c pass`
in the same environment. The first run of each command is not counted: it writes bytecode and the
index of plugins. Goal: 0.4 s each.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
GROUPS = ["family", "template", "adapter", "optimizer", "stage", "logger", "format", "accelerator"]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "tunewright --help": ["-m", "tunewright", "--help"],
    "tunewright plugins list": ["-m", "tunewright", "plugins", "list"],
    "tunewright recipe schema": ["-m", "tunewright", "recipe", "schema"],
    "tunewright recipe check quickstart.yaml": [
        "-m",
        "tunewright",
        "recipe",
        "check",
        "docs/examples/quickstart.yaml",
    ],
}
METADATA = (
    "Metadata-Version: 2.4\nName: {name}\nVersion: 0.1.0\nSummary: "
    "Nothing.\nRequires-Dist: tunewright>=0.1\n"
)


def make_plugins(folder: Path, count: int) -> None:
    for number in range(count):
        name = f"tunewright_dummy{number}"
        info = folder / f"{name}-0.1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(METADATA.format(name=name.replace("_", "-")))
        group = GROUPS[number % len(GROUPS)]
        point = f"[tunewright.{group}]\ndummy{number} = {name}:Dummy\n"
        info.joinpath("entry_points.txt").write_text(point)
        # heavy, to show that none is imported; but for formats: to detect one, all are asked
        heavy = "" if group == "format" else "import torch\n\n\n"
        folder.joinpath(f"{name}.py").write_text(f"{heavy}class Dummy:\n    pass\n")


def best_of(arguments: list[str], repeat: int, env: dict[str, str]) -> tuple[float, float]:
    """The fastest run: wall seconds and CPU seconds. Exits if the command fails."""
    clock, processor = [], []
    for _ in range(repeat + 1):
        before, started = used(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True
        )
        clock.append(time.perf_counter() - started)
        processor.append(used() - before)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return min(clock[1:]), min(processor[1:])


def used() -> float:
    """CPU seconds of all ended child processes."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plugins", type=int, default=60, help="besides those that are installed")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_plugins(Path(folder), options.plugins)
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
            "PYTHONPATH": folder
        }
        times = {
            name: best_of(arguments, options.repeat, env) for name, arguments in COMMANDS.items()
        }
    print(f"{options.plugins} dummy plugins, best of {options.repeat}")
    base = times["python -c pass"][1]
    for name, (clock, processor) in times.items():
        print(f"{clock:7.3f} s {processor:7.3f} s (CPU) {processor / base:6.1f}x  {name}")


if __name__ == "__main__":
    main()
