"""Commands for a checkout, with nothing but Python 3.11 to 3.13: `python3 scripts/dev.py VERB`.

  quickstart   train docs/examples/quickstart.yaml, then ask the trained model two questions
  test         run the tests, except those marked gpu or long; further arguments go to pytest
  check        run ruff, mypy and import-linter
  fix          apply ruff's fixes; update the generated lists and pages
  install      only create or update the environment
  build        build and check the wheel and the sdist of every member, in dist/ or another folder
  release      make a release: [VERSION] [--dry-run]; scripts/release.py says what it does
  lowest       run tests with the lowest versions of libraries that the members declare
  env NAME     create the environment NAME of `tunewright env list` over it, in .envs/, and run its
               tests; further arguments go to pytest

Every verb first creates or updates .venv (or the environment given by TUNEWRIGHT_VENV). If nothing
has changed, this takes no time.
"""

from __future__ import annotations  # so that older Pythons get far enough to print an error

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VENV = Path(os.environ.get("TUNEWRIGHT_VENV") or ROOT / ".venv").absolute()
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "tunewright.json"  # `state` of the last complete installation
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
    if not (3, 11) <= sys.version_info < (3, 14):
        return fail(
            f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}; try "
            "python3.11 scripts/dev.py"
        )
    verb, *more = sys.argv[1:] or ["help"]
    if verb not in VERBS:
        print(__doc__)
        return 0 if verb in ("help", "-h", "--help") else 2
    # Ctrl-C is handled by the child processes: a training saves first
    signal.signal(signal.SIGINT, lambda *_: None)
    install()
    return VERBS[verb](more)


# ---- the environment -----------------------------------------------------------------------------


def members(listed: str = "requirements.txt") -> dict[str, Path]:
    """Distribution → folder, as a list names them."""
    lines = (ROOT / listed).read_text("utf-8").splitlines()
    folders = [ROOT / line[len("-e ./") :] for line in lines if line.startswith("-e ./")]
    return {project(folder)["project"]["name"]: folder for folder in folders}


def project(folder: Path) -> dict[str, Any]:
    """A member's pyproject.toml."""
    import tomllib

    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))


def without_libraries() -> dict[str, Path]:
    """Members whose libraries have an environment of their own: Distribution → folder."""
    return members("requirements-envs.txt")


def state() -> dict[str, object]:
    """Everything that the environment depends on: if it is unchanged, there is nothing to
    install."""
    found = {**members(), **without_libraries()}
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
    """Create or update the environment, printing one line per step."""
    old = json.loads(STAMP.read_text("utf-8")) if STAMP.is_file() else {}
    new = state()
    if old == new:
        return
    STAMP.unlink(missing_ok=True)
    if not PYTHON.exists():
        step(f"making {shown(VENV)}", [sys.executable, "-m", "venv", VENV])
    complete = members()
    found = {**complete, **without_libraries()}
    with tempfile.TemporaryDirectory() as wheels:
        step("build backend", [*PIP, "flit_core"])
        command = [PYTHON, ROOT / "scripts/build_members.py", wheels, *found.values()]
        step(f"building {len(found)} members", command)
        offline = ["--no-deps", "--no-index", "--find-links", wheels, "--force-reinstall"]
        step("installing them", [*PIP, *offline, *found])
    if gone := sorted(set(old.get("members", [])) - set(found)):
        step("removing what is gone", [PYTHON, "-m", "pip", "uninstall", "--yes", *gone])
    libraries = ["-r", ROOT / "requirements-dev.txt", *complete]
    step("installing libraries (at first some GB and minutes)", [*PIP, *libraries])
    # not in git: it depends on the installed plugins
    schema = ROOT / "docs/examples/recipe.schema.json"
    step("writing the schema of recipes, for editors", [PYTHON, "-c", WRITE_SCHEMA, schema])
    STAMP.write_text(json.dumps(new, indent=1), "utf-8")


def step(title: str, command: list[object]) -> None:
    """Run a command under one line of output. Its own output is shown only if it fails."""
    print(f"{title} ... ", end="", flush=True)
    started = time.monotonic()
    output = []
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        for raw in process.stdout:
            output.append(raw.decode(errors="replace").rstrip())
            # show progress: the last line of output, on one line, then erased
            if sys.stdout.isatty():
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
    # two processes: each test imports torch or starts a process, so more would compete for memory
    return run(
        "pytest", "-q", "-m", "not gpu and not long", "-n", "2", "--dist", "worksteal", *more
    )


def env(more: list[str]) -> int:
    """The tests of an environment: tests/envs/NAME, the licences of what it holds, and the
    conformance of the members whose libraries it has."""
    name, *more = more or [""]
    os.environ["TUNEWRIGHT_ENVS"] = str(VENV.parent / ".envs")
    if code := run("tunewright", "env", "create", name):
        return code
    projects = [project(folder) for folder in without_libraries().values()]
    plugins = [
        f"--plugin={group.removeprefix('tunewright.')}:{plugin}"
        for each in projects
        if each["tool"]["tunewright"]["env"] == name
        for group, plugins in each["project"]["entry-points"].items()
        for plugin in plugins
    ]
    tests = [f"tests/envs/{name}", "tests/workspace/test_licences.py", "tests/conformance"]
    # warnings of libraries that only these members need are nothing that we could mend
    chosen = ["-m", "not gpu and not long", "-W", "ignore", "-n", "2", "--dist", "loadfile"]
    pytest = ["python", "-m", "pytest", "-q", *chosen, *tests]
    return run("tunewright", "env", "run", name, "--", *pytest, *plugins, *more)


def check(more: list[str]) -> int:
    tools = [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",), ("lint-imports",)]
    return max([run(*tool) for tool in tools])


def fix(more: list[str]) -> int:
    scripts = [
        *("make_lists.py", "make_docs.py", "make_reference.py", "make_errors.py"),
        "sync_translations.py",
    ]
    made = [run("python", f"scripts/{script}") for script in scripts]
    return max(*made, run("ruff", "check", "--fix"), run("ruff", "format"))


def build(more: list[str]) -> int:
    return run("python", "scripts/build_dists.py", *(more or ["dist"]))


def release(more: list[str]) -> int:
    return run("python", "scripts/release.py", *more)


def lowest(more: list[str]) -> int:
    return run("python", "scripts/lowest.py", *more)


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
    "env": env,
    "build": build,
    "release": release,
    "lowest": lowest,
}

if __name__ == "__main__":
    sys.exit(main())
