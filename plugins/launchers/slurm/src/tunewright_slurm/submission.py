"""Submitting the batch script."""

import shutil
import subprocess
from typing import Any

from tunewright.errors import RunError
from tunewright.launch import Launched, LaunchRequest
from tunewright_slurm.script import batch_script, log


def submit(options: Any, request: LaunchRequest) -> Launched:
    """Write the script beside the run folder, and submit it. Raises RunError."""
    script = batch_script(options, request)
    if request.dry_run:
        return Launched(detail=script)
    if shutil.which("sbatch") is None:
        hint = "run it on a login node; --dry-run prints the script"
        raise RunError("there is no sbatch here", place="launch", hint=hint)
    file = request.folder.absolute().with_name(f"{request.folder.name}.sbatch")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot be written: {error.strerror}", place=str(file)) from error
    done = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split()).removeprefix("sbatch: error: ")
        raise RunError(f"sbatch: {said:.300}", place="launch", hint=f"the script is {file}")
    job = done.stdout.strip().partition(";")[0]
    where = str(log(request.folder)).replace("%j", job)
    detail = f"job {job} is submitted; its output: {where}; to save and end it: scancel -s TERM"
    return Launched(detail=f"{detail} {job}", submitted=True)
