"""Launcher slurm: runs as batch jobs of a SLURM cluster."""

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from tunewright import Launcher, PluginOptions, hookimpl

if TYPE_CHECKING:
    from tunewright.launch import Launched, LaunchRequest
    from tunewright.types import RunContext

_ADVANCED: Any = {"tier": "advanced"}


class Slurm(Launcher):
    """Submits the run as a batch job: one task for each process.

    Before its time is up, or when it is preempted, the job saves a checkpoint, and is queued again
    to continue. `--dry-run` prints the script.
    """

    class Options(PluginOptions):
        partition: str | None = Field(None, min_length=1)
        """Partition to submit to. Default: the cluster's."""
        time: str | None = Field(None, pattern=r"^[0-9][0-9:-]*$")
        """Time limit, such as "24:00:00". Default: the partition's."""
        gpus_per_node: int | None = Field(None, ge=1, le=1024)
        """GPUs to ask for on each node. Default: none are asked for."""
        cpus_per_task: int | None = Field(None, ge=1, le=65536)
        """CPU cores for each process. Default: the cluster's."""
        requeue: bool = True
        """Queue the job again after a preemption or at its time limit, and continue from the
        checkpoint."""
        save_seconds: int = Field(120, ge=1, le=86400)
        """Seconds before the time limit at which the run saves and stops."""
        sbatch: dict[str, str | int] = Field(default_factory=dict, json_schema_extra=_ADVANCED)
        """Further options of sbatch, such as {mem: 64G, constraint: a100}."""
        setup: list[str] = Field(default_factory=list, json_schema_extra=_ADVANCED)
        """Shell lines that run on the first node before the run, such as module load cuda."""

        @field_validator("sbatch")
        @classmethod
        def _are_options(cls, found: dict[str, str | int]) -> dict[str, str | int]:
            for name, value in found.items():
                if not name.replace("-", "").isalnum() or name.startswith("-"):
                    raise ValueError(f"{name!r} is no option of sbatch, expected such as mem")
                if any(letter in str(value) for letter in "\r\n"):
                    raise ValueError(f"{name} has several lines")
            return found

    @hookimpl
    def launch(self, run: "RunContext", request: "LaunchRequest") -> "Launched":
        from tunewright_slurm.submission import submit

        return submit(self.options, request)
