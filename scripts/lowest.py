"""Tests with the lowest versions that the members declare: `python scripts/lowest.py [PYTEST…]`.

uv resolves the direct requirements of the default install to their lowest versions. Those that
differ from what is installed come into .envs/lowest, which sees the rest of this environment. Not
torch, whose patch versions have gigabytes. Default tests: a short subset of the core.
"""

import re
import site
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

from make_lists import env_of, members
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".envs/lowest"
#: left as they are: gigabytes, and pytest, of which our own tests need a newer one than the suite
LEFT = re.compile(r"torch|nvidia-|cuda-|triton|pytest$")
#: the short subset: the kernel, data, a chat template, and a training of each optimizer library
CORE = [
    "tests/kernel",
    "tests/data/test_formats.py",
    "tests/data/test_formats_openai.py",
    "tests/data/test_files.py",
    "tests/templates/test_rendering.py",
    "tests/training/test_optimizers.py",
    "tests/training/test_optimizer_rules.py",
    "tests/surface/test_loggers.py",
]


def main(arguments: list[str]) -> int:
    wanted = needs()
    pins = {name: version for name, version in resolved(wanted).items() if differs(name, version)}
    print(f"{len(pins)} of {len(wanted)} requirements and what they need differ:", end=" ")
    print(", ".join(f"{name} {version}" for name, version in sorted(pins.items())), flush=True)
    python = create(pins)
    # warnings of old versions are nothing that we could mend
    options = ["-q", "-m", "not gpu and not long", "-W", "ignore", "-p", "no:cacheprovider"]
    command = [str(python), "-m", "pytest", *options, *(arguments or CORE)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def needs() -> list[str]:
    """Requirements of the members of the default install, but for ours."""
    found: set[str] = set()
    for member in members():
        if env_of(member):
            continue
        project = tomllib.loads((member / "pyproject.toml").read_text("utf-8"))["project"]
        for need in map(Requirement, project["dependencies"]):
            if not need.name.startswith("tunewright"):
                found.add(str(need))
    return sorted(found)


def resolved(wanted: list[str]) -> dict[str, str]:
    """Library → version: the lowest of those in `wanted`, the newest of what they need."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "-"]
    version = ".".join(map(str, sys.version_info[:2]))
    command += ["--resolution", "lowest-direct", "--no-annotate", "--python-version", version]
    text = "\n".join(wanted)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the lowest versions do not fit together\n{done.stderr}")
    lines = [line.split("==") for line in done.stdout.splitlines() if "==" in line]
    return {canonicalize_name(name): version.split(" ")[0] for name, version in lines}


def differs(name: str, version: str) -> bool:
    """Whether another version than this is installed here."""
    try:
        return not LEFT.match(name) and Version(metadata.version(name)) != Version(version)
    except metadata.PackageNotFoundError:
        return not LEFT.match(name)


def create(pins: dict[str, str]) -> Path:
    """Create the environment over this one. Returns its Python."""
    venv.create(FOLDER, clear=True, with_pip=False, symlinks=True)
    python = FOLDER / "bin/python"
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    exact = [f"{name}=={version}" for name, version in pins.items()]
    subprocess.run([*command, "--no-deps", *exact], check=True)
    own = next(FOLDER.glob("lib/python*/site-packages"))
    # addsitedir reads the .pth files in there, too: of packages that are installed editable
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in site.getsitepackages()]
    (own / "zz_base.pth").write_text("".join(lines), "utf-8")
    return python


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
