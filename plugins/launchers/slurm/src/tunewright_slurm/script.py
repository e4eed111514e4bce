"""The batch script of a run."""

import shlex
import sys
from pathlib import Path
from typing import Any

from tunewright.launch import LaunchRequest

#: one task of srun: variables of tunewright.launch.VARIABLES, then the command that it gets
_TASK = """\
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
export LOCAL_WORLD_SIZE={processes}
exec "$@"
"""
_BODY = """\
set -u
cd {folder}
{setup}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')
export MASTER_ADDR=${{address:-$first}}
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
resume=
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then resume=--resume; fi

# SLURM signals this script before the time limit, or at a preemption: the run saves and ends
stopped=
stop() {{
    stopped=yes
    scancel --signal=TERM "$SLURM_JOB_ID"
}}
trap stop TERM

srun --kill-on-bad-exit=0 bash -c {task} task {command} $resume &
step=$!
wait $step
code=$?
if [ -n "$stopped" ]; then
    wait $step
    code=$?
{requeue}fi
exit $code
"""
_REQUEUE = """\
    # a job that was cancelled is not RUNNING any more
    if [ $code -eq 130 ] && scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
"""


def batch_script(options: Any, request: LaunchRequest) -> str:
    """The script that is submitted. options: of the plugin."""
    asked: dict[str, Any] = {
        "job-name": request.folder.name or "tunewright",
        "nodes": request.nodes,
        "ntasks-per-node": request.processes,
        "partition": options.partition,
        "time": options.time,
        "gpus-per-node": options.gpus_per_node,
        "cpus-per-task": options.cpus_per_task,
        "signal": f"B:TERM@{options.save_seconds}",
        "open-mode": "append",
        "output": log(request.folder),
        **options.sbatch,
    }
    lines = [
        f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in asked.items()
        if value is not None
    ]
    lines.append(f"#SBATCH --{'' if options.requeue else 'no-'}requeue")
    body = _BODY.format(
        folder=shlex.quote(str(Path.cwd())),
        setup="\n".join(options.setup),
        task=shlex.quote(_TASK.format(processes=request.processes)),
        command=shlex.join([sys.executable, "-m", "tunewright", *request.argv]),
        requeue=_REQUEUE if options.requeue else "",
    )
    return "\n".join(["#!/bin/bash", *lines, "", body])


def log(folder: Path) -> Path:
    """Path of the job's output, beside the run folder. %j is the job's number."""
    return folder.absolute().parent / f"{folder.name or 'tunewright'}-slurm-%j.log"
