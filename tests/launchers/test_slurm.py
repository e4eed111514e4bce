"""The batch script of launcher slurm, run by bash with stand-ins for SLURM's commands. With a real
cluster: tests/e2e/test_slurm.py."""

import os
import subprocess
from pathlib import Path

import pytest

from tunewright.errors import RunError
from tunewright.launch import LaunchRequest
from tunewright_slurm import Slurm
from tunewright_slurm.script import batch_script
from tunewright_slurm.submission import submit

#: what each command prints, and what it writes to the file `said`
COMMANDS = {
    "sbatch": 'cp "$2" "$TW/submitted"; echo "17;cluster"',
    "scontrol": """echo "scontrol $*" >> "$TW/said"
case "$*" in
  "show hostnames"*) printf 'n1\\nn2\\n' ;;
  "show node n1") echo "   NodeAddr=10.0.0.1 NodeHostName=n1" ;;
  "show job"*) echo "JobState=${STATE:-RUNNING}" ;;
esac""",
    "scancel": """echo "scancel $*" >> "$TW/said"; kill -TERM $(cat "$TW/step")""",
    "srun": """echo $$ > "$TW/step"
export SLURM_PROCID=3 SLURM_NTASKS=4 SLURM_LOCALID=1
while [ "$1" != bash ]; do shift; done
"$@" &
child=$!
trap 'kill -TERM $child' TERM
wait $child; code=$?
[ $code -gt 128 ] && [ $code -ne 130 ] && { wait $child; code=$?; }
exit $code""",
    "worker": """echo "$RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT"
printf '%s\\n' "$*"
[ -n "${WAITS:-}" ] || exit ${CODE:-0}
trap 'exit 130' TERM
touch "$TW/ready"
while :; do sleep 0.05; done""",
}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="SLURM runs on Linux")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with stand-ins of SLURM's commands, which are the ones on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TW", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(folder / "worker"))
    return tmp_path


def request(folder: Path, *argv: str, dry_run: bool = False) -> LaunchRequest:
    argv = argv or ("train", "a recipe.yaml", "output=it's")
    return LaunchRequest([*argv], 2, 2, folder, dry_run=dry_run)


def script(folder: Path, **options: object) -> Path:
    file = folder / "job"
    file.write_text(batch_script(Slurm.Options.model_validate(options), request(folder / "run")))
    return file


def test_it_asks_for_what_the_recipe_says(cluster: Path) -> None:
    options = {"partition": "gpu", "time": "24:00:00", "gpus_per_node": 2, "sbatch": {"mem": "64G"}}
    asked = script(cluster, **options).read_text().splitlines()
    expected = ("nodes=2", "ntasks-per-node=2", "partition=gpu", "time=24:00:00", "mem=64G")
    assert {f"#SBATCH --{each}" for each in (*expected, "gpus-per-node=2", "requeue")} < set(asked)
    assert "#SBATCH --signal=B:TERM@120" in asked


def test_a_task_is_a_worker(cluster: Path) -> None:
    done = subprocess.run(["bash", script(cluster)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    variables, words = done.stdout.splitlines()
    assert variables == "3 4 1 2 10.0.0.1 20017"
    assert words == "-m tunewright train a recipe.yaml output=it's"


def test_a_job_that_was_requeued_resumes(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    done = subprocess.run(["bash", script(cluster)], capture_output=True, text=True)
    assert done.stdout.splitlines()[1].endswith(" --resume")


def test_the_code_of_a_run_that_failed(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE", "2")
    assert subprocess.run(["bash", script(cluster)], capture_output=True).returncode == 2
    assert "requeue" not in (cluster / "said").read_text()


@pytest.mark.parametrize(
    ("options", "state", "requeued"),
    [({}, "RUNNING", True), ({}, "COMPLETING", False), ({"requeue": False}, "RUNNING", False)],
)
def test_a_preempted_job_saves_and_is_queued_again(
    cluster: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, bool],
    state: str,
    requeued: bool,
) -> None:
    monkeypatch.setenv("WAITS", "1")
    monkeypatch.setenv("STATE", state)
    job = subprocess.Popen(["bash", script(cluster, **options)], stdout=subprocess.DEVNULL)
    while not (cluster / "ready").exists():
        assert job.poll() is None
    job.terminate()
    assert job.wait(60) == 130
    said = (cluster / "said").read_text()
    assert "scancel --signal=TERM 17" in said
    assert ("scontrol requeue 17" in said) == requeued


def test_it_is_submitted(cluster: Path) -> None:
    launched = submit(Slurm.Options(), request(cluster / "runs" / "x"))
    assert launched.submitted and launched.detail.startswith("job 17 is submitted")
    assert str(cluster / "runs" / "x-slurm-17.log") in launched.detail
    written = (cluster / "runs" / "x.sbatch").read_text()
    assert (cluster / "submitted").read_text() == written
    assert not (cluster / "runs" / "x").exists()


def test_a_dry_run_writes_nothing(cluster: Path) -> None:
    found = submit(Slurm.Options(), request(cluster / "runs" / "x", dry_run=True))
    assert found.detail.startswith("#!/bin/bash") and not found.submitted
    assert not (cluster / "runs").exists()


def test_what_sbatch_refuses(cluster: Path) -> None:
    (cluster / "bin" / "sbatch").write_text(
        "#!/bin/bash\necho 'sbatch: error: invalid partition' >&2; exit 1\n"
    )
    with pytest.raises(RunError, match="sbatch: invalid partition"):
        submit(Slurm.Options(), request(cluster / "x"))


def test_no_slurm_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r"there is no sbatch here \(run it on a login node"):
        submit(Slurm.Options(), request(tmp_path / "x"))


@pytest.mark.parametrize("wrong", [{"--mem": 1}, {"mem": "1\n#SBATCH --exclusive"}])
def test_options_that_are_none(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"is no option|several lines"):
        Slurm.Options(sbatch=wrong)
