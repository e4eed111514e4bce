"""Creating an environment: a venv, the packages, and a look at whether they are there."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewright import RunError
from tunewright_env.environments import STAMP, Environment, base_folders

CHECK = """
import sys
from importlib.metadata import version
wrong = [need for need in sys.argv[1:] if "==" in need and version(need.split("==")[0].split("[")[0]) != need.split("==")[1]]
sys.exit(f"other versions than asked for: {', '.join(wrong)}" if wrong else 0)
"""  # noqa: E501
SCRIPT = "#!{python}\nimport sys\nfrom tunewright.cli import main\nsys.exit(main())\n"


def create_environment(environment: Environment) -> None:
    """Create it, unless it is ready; one line of progress a step. Raises RunError.

    Nothing half made is left: what fails or is stopped is removed, what was killed is removed when
    it is created again.
    """
    from filelock import FileLock, Timeout

    folder = environment.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{environment.name}.lock", timeout=0):
            if not environment.is_ready():
                with _removed_on_failure(folder):
                    _create(environment)
    except Timeout as error:
        problem = "another process is creating this environment"
        raise RunError(problem, place=str(folder), hint="wait for it") from error
    except OSError as error:
        problem = f"cannot be created: {error.strerror or error}"
        raise RunError(problem, place=str(folder), hint="set TUNEWRIGHT_ENVS") from error
    print(f"{environment.name} is ready: tunewright env run {environment.name} -- COMMAND")


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _create(environment: Environment) -> None:
    kind = "overlay" if environment.overlay else "environment of its own"
    _step(f"[1/3] {kind} {environment.folder}", [sys.executable, "-m", "venv", environment.folder])
    if environment.overlay:
        _lay_over(environment)
    constraints = environment.folder / "constraints.txt"
    constraints.write_text("\n".join(environment.constraints), "utf-8")
    pip: list[str | Path] = [
        environment.python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
    ]
    options: list[str | Path] = [*environment.pip_options, "-c", constraints]
    count = len(environment.packages)
    _step(f"[2/3] {count} packages and what they need", [*pip, *options, *environment.packages])
    _step("[3/3] versions", [environment.python, "-c", CHECK, *environment.packages])
    (environment.folder / STAMP).write_text(
        json.dumps({"digest": environment.digest()}), encoding="utf-8"
    )


def _lay_over(environment: Environment) -> None:
    """Let it see the packages of the present environment, behind its own, and have the command."""
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run(
        [str(environment.python), "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()
    # addsitedir reads the .pth files in there, too: of packages that are installed editable
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in base_folders()]
    Path(own, "zz_tunewright_base.pth").write_text("".join(lines), encoding="utf-8")
    if os.name != "nt":
        script = environment.bin / "tunewright"
        script.write_text(SCRIPT.format(python=environment.python), encoding="utf-8")
        script.chmod(0o755)


def _step(title: str, command: list[str | Path]) -> None:
    """Run a command under one line of output. Raises RunError with the last line that it wrote."""
    print(f"{title} ... ", end="", flush=True)
    started, last, failed = time.monotonic(), "", ""
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        try:
            for raw in process.stdout:
                last = " ".join(raw.decode(errors="replace").split()) or last
                failed = last if last.startswith("ERROR:") and not failed else failed
                if sys.stdout.isatty():  # show that it is alive
                    print(f"\r\033[K{title} ... {last[:60]}", end="", flush=True)
        except BaseException:
            process.terminate()
            raise
    if sys.stdout.isatty():
        print(f"\r\033[K{title} ... ", end="")
    if process.returncode:
        print("failed", flush=True)
        hint = f"to see all that it says, run: {subprocess.list2cmdline(map(str, command))[:500]}"
        raise RunError(failed or last or f"exit code {process.returncode}", place=title, hint=hint)
    print(f"{time.monotonic() - started:.0f} s", flush=True)
