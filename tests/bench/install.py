"""Benchmark of installing N editable members, in several ways.

    python tests/bench/install.py [--members 60] [--repeat 1] [--way TEXT …]

Creates N trivial members in a temporary folder and installs them, `--no-deps`, into a virtual
environment with pip and what the way needs, without torch. Then checks that N entry points exist,
and measures `python -c pass` in it. Prints seconds, and the ratio to the fastest way.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BACKENDS = {
    "flit_core": 'requires = ["flit_core>=3.12"]\nbuild-backend = "flit_core.buildapi"\n',
    "hatchling": 'requires = ["hatchling", "editables"]\nbuild-backend = "hatchling.build"\n',
    "setuptools": 'requires = ["setuptools>=80"]\nbuild-backend = "setuptools.build_meta"\n',
}
MEMBER = """[project]
name = "dummy-{number}"
version = "0.1.0"
description = "Nothing."
requires-python = ">=3.11"

[project.entry-points."dummy.kind"]
dummy{number} = "dummy_{number}:Dummy"

[build-system]
"""
TOOLS = ["flit_core>=3.12", "hatchling", "editables", "setuptools>=80", "uv"]


@dataclass
class Bench:
    """An environment with the tools, and N members of one build backend."""

    python: Path
    folder: Path
    members: list[Path]

    def call(self, *command: str | Path) -> None:
        subprocess.run(
            [str(part) for part in command],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def pip(self, *arguments: str | Path) -> None:
        self.call(self.python, "-m", "pip", "install", "--no-deps", "-q", *arguments)

    def uv(self, *arguments: str | Path) -> None:
        self.call(
            self.python,
            "-m",
            "uv",
            "pip",
            "install",
            "--no-deps",
            "-q",
            "--python",
            self.python,
            *arguments,
        )

    def editable(self) -> list[str]:
        return [part for member in self.members for part in ("-e", str(member))]


def one_by_one(bench: Bench) -> None:
    for member in bench.members:
        bench.pip("-e", member)


def build_in_one_process(bench: Bench) -> list[Path]:
    wheels = bench.folder / "wheels"
    bench.call(bench.python, ROOT / "scripts/build_members.py", wheels, *bench.members)
    return sorted(wheels.glob("*.whl"))


@dataclass
class Way:
    name: str
    backend: str
    run: Callable[[Bench], None]


WAYS = [
    Way("pip -e, one call a member", "flit_core", one_by_one),
    Way("pip -e, one call", "flit_core", lambda b: b.pip(*b.editable())),
    Way(
        "pip -e, one call, no isolation",
        "flit_core",
        lambda b: b.pip("--no-build-isolation", *b.editable()),
    ),
    Way(
        "pip -e, one call, no isolation",
        "hatchling",
        lambda b: b.pip("--no-build-isolation", *b.editable()),
    ),
    Way(
        "pip -e, one call, no isolation",
        "setuptools",
        lambda b: b.pip("--no-build-isolation", *b.editable()),
    ),
    Way("uv -e, one call", "flit_core", lambda b: b.uv(*b.editable())),
    Way(
        "uv -e, one call, no isolation",
        "flit_core",
        lambda b: b.uv("--no-build-isolation", *b.editable()),
    ),
    Way(
        "uv -e, one call, no isolation",
        "hatchling",
        lambda b: b.uv("--no-build-isolation", *b.editable()),
    ),
    Way("one process builds, pip installs", "flit_core", lambda b: b.pip(*build_in_one_process(b))),
    Way("one process builds, uv installs", "flit_core", lambda b: b.uv(*build_in_one_process(b))),
]


def make_members(folder: Path, backend: str, count: int) -> list[Path]:
    members = []
    for number in range(count):
        member = folder / f"dummy-{number}"
        package = member / "src" / f"dummy_{number}"
        package.mkdir(parents=True)
        package.joinpath("__init__.py").write_text('"""Nothing."""\n\n\nclass Dummy:\n    pass\n')
        member.joinpath("pyproject.toml").write_text(
            MEMBER.format(number=number) + BACKENDS[backend]
        )
        members.append(member)
    return members


def measure(way: Way, count: int, folder: Path) -> tuple[float, float]:
    """Seconds to install, and seconds of `python -c pass` afterwards (best of 5)."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    bench = Bench(python, folder, make_members(folder, way.backend, count))
    bench.call(python, "-m", "pip", "install", "-q", *TOOLS)
    started = time.perf_counter()
    way.run(bench)
    seconds = time.perf_counter() - started
    check = (
        "from importlib.metadata import entry_points; "
        "print(*entry_points(group='dummy.kind').names)"
    )
    found = subprocess.run(
        [python, "-c", check], check=True, capture_output=True, text=True
    ).stdout.split()
    if len(found) != count:
        sys.exit(f"{way.name}: {len(found)} of {count} members are there")
    return seconds, min(seconds_of([str(python), "-c", "pass"]) for _ in range(5))


def seconds_of(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=1, help="the best of so many is printed")
    parser.add_argument(
        "--way", action="append", help="only ways whose name or backend holds this text"
    )
    arguments = parser.parse_args()
    ways = [
        w
        for w in WAYS
        if not arguments.way or any(t in f"{w.name} {w.backend}" for t in arguments.way)
    ]
    rows = []
    for way in ways:
        runs = []
        for _ in range(arguments.repeat):
            folder = Path(tempfile.mkdtemp(prefix="tunewright-install-"))
            try:
                runs.append(measure(way, arguments.members, folder))
            finally:
                shutil.rmtree(folder)
        rows.append((*min(runs), way))
        print(f"{rows[-1][0]:8.1f} s  {way.name} ({way.backend})", file=sys.stderr, flush=True)
    best = min(seconds for seconds, _, _ in rows)
    print(f"\n{arguments.members} members\n{'seconds':>8} {'ratio':>7} {'python -c pass':>15}  way")
    for seconds, start, way in sorted(rows, key=lambda row: row[0]):
        print(
            f"{seconds:8.1f} {seconds / best:6.1f}x {start * 1000:12.0f} ms  "
            f"{way.name} ({way.backend})"
        )


if __name__ == "__main__":
    main()
