"""Launcher ray: runs on a Ray cluster."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunewright import Launcher, PluginOptions, hookimpl

if TYPE_CHECKING:
    from tunewright.launch import Launched, LaunchRequest
    from tunewright.types import RunContext

_ADVANCED: Any = {"tier": "advanced"}


class Ray(Launcher):
    """Starts the processes as workers of Ray Train. `tunewright env create ray` installs Ray.

    After the loss of a worker or a host Ray starts all of them again, and the run continues from
    its last checkpoint. Tunewright and the recipe's plugins have to be installed on all hosts.
    """

    class Options(PluginOptions):
        address: str | None = Field(None, min_length=1)
        """Address of the cluster, or auto for the one that this host belongs to. Default: the
        variable RAY_ADDRESS, else a cluster on this host for the time of the run."""
        max_failures: int = Field(3, ge=0, le=10000)
        """How often the workers are started again after one was lost, or the run failed."""
        resources: dict[str, float] = Field(default_factory=dict)
        """Resources of each process, such as {GPU: 1, CPU: 8}. Default: one CPU."""
        placement: str = Field("", pattern="^(PACK|SPREAD|STRICT_PACK|STRICT_SPREAD|)$")
        """Ray's placement strategy: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD. Default: PACK with
        one node, SPREAD with several."""
        storage: str | None = Field(
            None, min_length=1, json_schema_extra={**_ADVANCED, "widget": "path"}
        )
        """Folder or URL in which Ray keeps its own state of the run. Default: ~/ray_results."""

    @hookimpl
    def launch(self, run: "RunContext", request: "LaunchRequest") -> "Launched":
        from tunewright_ray.driver import launched

        return launched(self.options, request, run.recipe.launch.timeout)
