"""Launcher slurm on a real cluster: SLURM's daemons, as Debian has them, on this host as two nodes.

apt-get install slurmctld slurmd slurm-client munge
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.test_elastic import RECIPE
from forked import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONF = """
ClusterName=tw
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
NodeName=tw1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName=tw2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in PROGRAMS)
        or not hasattr(os, "geteuid")
        or os.geteuid() != 0,
        reason="needs root, and slurmctld, slurmd, slurm-client and munge",
    ),
]


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def until(found: Callable[[], bool], seconds: float, problem: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, problem()
        time.sleep(0.3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a cluster with nodes tw1 and tw2; SLURM's commands talk to it."""
    folder = tmp_path_factory.mktemp("slurm")
    for each in (folder, *folder.parents):
        if "pytest" in str(each):
            each.chmod(0o755)  # munge wants a path that nobody else can change
    for name in ("state", "spool-tw1", "spool-tw2"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    ports = [free_port() for _ in range(3)]
    conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, ports=ports))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", "tw1"],
        ["slurmd", "-D", "-N", "tw2"],
    ]
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(conf)
    daemons = []
    try:
        for command in commands:
            with (folder / f"{command[0]}-{len(daemons)}.log").open("w") as log:
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(0.5)
        until(
            lambda: said("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2",
            60,
            lambda: said("sinfo") + "".join(each.read_text() for each in folder.glob("*.log")),
        )
        yield folder
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def submitted(folder: Path, name: str) -> str:
    """Submit the run, and return the job's number."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("save_steps: 3", "save_steps: 20"))
    launch = "launch={name: slurm, nodes: 2, processes: 1}"
    words = ["training.batching=random", "training.per_device_train_batch_size=2"]
    words += ["training.max_steps=120", f"output={folder / name}", launch]
    command = [sys.executable, "-m", "tunewright", "train", str(recipe), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


def state(job: str) -> str:
    return said("scontrol", "show", "job", job).partition("JobState=")[2].partition(" ")[0]


def test_a_preempted_job_ends_with_the_bits_of_one_that_was_not(
    cluster: Path, tmp_path: Path
) -> None:
    def outcome(name: str, job: str) -> str:
        log = tmp_path / f"{name}-slurm-{job}.log"
        return f"{said('scontrol', 'show', 'job', job)}\n{log.read_text() if log.exists() else ''}"

    whole = submitted(tmp_path, "whole")
    until(lambda: state(whole) == "COMPLETED", 400, lambda: outcome("whole", whole))
    cut = submitted(tmp_path, "cut")
    saved = tmp_path / "cut" / "checkpoints" / "step-20" / "manifest.json"
    until(saved.exists, 400, lambda: outcome("cut", cut))
    said("scancel", "--signal=TERM", "--batch", cut)  # as a preemption does
    until(lambda: state(cut) == "PENDING", 120, lambda: outcome("cut", cut))
    log = (tmp_path / f"cut-slurm-{cut}.log").read_text()
    assert "stopped and saved at step" in log, log
    said("scontrol", "update", f"JobId={cut}", "StartTime=now")
    until(lambda: state(cut) == "COMPLETED", 400, lambda: outcome("cut", cut))
    assert "Restarts=1" in said("scontrol", "show", "job", cut)
    bits = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")
    ]
    assert bits[0] == bits[1]
    print(outcome("cut", cut))


def test_a_run_that_fails_is_not_queued_again(cluster: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    job = submitted(tmp_path, "run")
    until(lambda: state(job) == "FAILED", 200, lambda: said("scontrol", "show", "job", job))
    log = (tmp_path / f"run-slurm-{job}.log").read_text()
    assert "is not empty, and holds no run of ours" in log, log
