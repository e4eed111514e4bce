"""What a checkout needs, with nothing but Python 3.11: `python3 scripts/dev.py VERB`.

  quickstart   train docs/examples/quickstart.yaml, then ask the trained model two questions
  test         the tests, without those marked gpu or long; more arguments go to pytest
  check        ruff, mypy and import-linter
  fix          let ruff mend what it can; write the generated lists and pages anew
  install      only make the environment ready

Every verb first makes .venv (or the environment that TUNEWRIGHT_VENV names) ready; where nothing
has changed since the last time, that takes no time.
"""

from __future__ import annotations  # so that an older Python gets as far as to say what is wrong

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = Path(os.environ.get("TUNEWRIGHT_VENV") or ROOT / ".venv").absolute()
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "tunewright.json"  # what stood here when everything had been installed
WRITE_SCHEMA = """
import json, sys, tunewright.schema
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(tunewright.schema.schema(), file, indent=1)
"""
PIP = [
    PYTHON,
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-input",
    "install",
    "-c",
    ROOT / "constraints.txt",
]


def main() -> int:
    if sys.version_info < (3, 11):
        return fail(
            f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try "
            "python3.11 scripts/dev.py"
        )
    verb, *more = sys.argv[1:] or ["help"]
    if verb not in VERBS:
        print(__doc__)
        return 0 if verb in ("help", "-h", "--help") else 2
    signal.signal(
        signal.SIGINT, lambda *_: None
    )  # Ctrl-C is for what runs below: a training saves first
    install()
    return VERBS[verb](more)


# ---- the environment -----------------------------------------------------------------------------


def members() -> dict[str, Path]:
    """Distribution → folder, as requirements.txt lists them."""
    import tomllib

    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    folders = [ROOT / line[len("-e ./") :] for line in lines if line.startswith("-e ./")]
    return {
        tomllib.loads((f / "pyproject.toml").read_text("utf-8"))["project"]["name"]: f
        for f in folders
    }


def state() -> dict[str, object]:
    """What the environment depends on: when it is what it was, there is nothing to install."""
    found = members()
    files = [
        *ROOT.glob("requirements*.txt"),
        ROOT / "constraints.txt",
        *(f / "pyproject.toml" for f in found.values()),
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file}\n".encode() + file.read_bytes())
    return {"python": sys.version, "digest": digest.hexdigest(), "members": sorted(found)}


def install() -> None:
    """Make the environment ready, one printed line a step."""
    old = json.loads(STAMP.read_text("utf-8")) if STAMP.is_file() else {}
    new = state()
    if old == new:
        return
    STAMP.unlink(missing_ok=True)
    if not PYTHON.exists():
        step(f"making {shown(VENV)}", [sys.executable, "-m", "venv", VENV])
    found = members()
    with tempfile.TemporaryDirectory() as wheels:
        step("build backend", [*PIP, "flit_core"])
        command = [PYTHON, ROOT / "scripts/build_members.py", wheels, *found.values()]
        step(f"building {len(found)} members", command)
        offline = ["--no-deps", "--no-index", "--find-links", wheels, "--force-reinstall"]
        step("installing them", [*PIP, *offline, *found])
    if gone := sorted(set(old.get("members", [])) - set(found)):
        step("removing what is gone", [PYTHON, "-m", "pip", "uninstall", "--yes", *gone])
    libraries = ["-r", ROOT / "requirements-dev.txt", *found]
    step("installing libraries (at first some GB and minutes)", [*PIP, *libraries])
    schema = (
        ROOT / "docs/examples/recipe.schema.json"
    )  # not in git: it is of the plugins that are installed
    step("writing the schema of recipes, for editors", [PYTHON, "-c", WRITE_SCHEMA, schema])
    STAMP.write_text(json.dumps(new, indent=1), "utf-8")


def step(title: str, command: list[object]) -> None:
    """Run a command under one line of output; all of it is shown only where it fails."""
    print(f"{title} ... ", end="", flush=True)
    started = time.monotonic()
    output = []
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        for raw in process.stdout:
            output.append(raw.decode(errors="replace").rstrip())
            if sys.stdout.isatty():  # show that it is alive: the last line, on one line, then wiped
                print(
                    f"\r\033[K{title} ... {' '.join(output[-1].split())[:60]}", end="", flush=True
                )
    if sys.stdout.isatty():
        print(f"\r\033[K{title} ... ", end="")
    seconds = time.monotonic() - started
    if process.returncode:
        print("failed")
        print("\n".join(output[-40:]), file=sys.stderr)
        sys.exit(
            fail(
                f"{title}: exit code {process.returncode}; the last lines of its output stand above"
            )
        )
    print(f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s", flush=True)


# ---- the verbs -----------------------------------------------------------------------------------


def quickstart(more: list[str]) -> int:
    if code := run("tunewright", "train", "docs/examples/quickstart.yaml", "--overwrite", *more):
        return code
    print("\nThe loss curve is runs/quickstart/loss.png. Now the trained model answers:")
    questions = ["--message", "What is your name?", "--message", "Who made you?"]
    if code := run("tunewright", "chat", "runs/quickstart", *questions):
        return code
    print(f"\nTalk to it yourself: {shown(PYTHON.parent)}{os.sep}tunewright chat runs/quickstart")
    return 0


def test(more: list[str]) -> int:
    # two processes: each test imports torch or is a process of its own, and more of them fight for
    # memory
    return run(
        "pytest", "-q", "-m", "not gpu and not long", "-n", "2", "--dist", "worksteal", *more
    )


def check(more: list[str]) -> int:
    tools = [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",), ("lint-imports",)]
    return max([run(*tool) for tool in tools])


def fix(more: list[str]) -> int:
    scripts = ("make_lists.py", "make_docs.py", "make_reference.py", "make_errors.py")
    made = [run("python", f"scripts/{script}") for script in scripts]
    return max(*made, run("ruff", "check", "--fix"), run("ruff", "format"))


def run(program: str, *arguments: str) -> int:
    """Run a program of the environment in the root of the checkout. Returns its exit code."""
    print(f"\n$ {subprocess.list2cmdline([program, *arguments])}", flush=True)
    return subprocess.call([str(PYTHON.parent / program), *arguments], cwd=ROOT)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


VERBS = {
    "quickstart": quickstart,
    "test": test,
    "check": check,
    "fix": fix,
    "install": lambda more: 0,
}

if __name__ == "__main__":
    sys.exit(main())
