"""Running a command in an environment."""

import os
import shutil
import subprocess
import sys

from tunewright import RunError
from tunewright_env.environments import Environment


def run_in(environment: Environment, command: list[str]) -> None:
    """Replace this process by the command, with the environment's programs first in PATH.

    Raises RunError where the environment is not ready, or there is no such program.
    """
    if not environment.is_ready():
        problem = "is not created, or from other versions than it has now"
        hint = f"tunewright env create {environment.name}"
        raise RunError(problem, place=f"environment {environment.name}", hint=hint)
    path = os.pathsep.join([str(environment.bin), os.environ.get("PATH", os.defpath)])
    variables = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(environment.folder)}
    variables.pop("PYTHONHOME", None)
    program = shutil.which(command[0], path=path)
    if program is None:
        raise RunError(f"there is no program {command[0]!r}", place="command line")
    if os.name == "nt":
        sys.exit(subprocess.call([program, *command[1:]], env=variables))
    sys.stdout.flush()
    os.execve(program, [program, *command[1:]], variables)  # noqa: S606 - no shell is wanted
