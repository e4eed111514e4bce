"""Launcher torchrun: torch's own, on this host or on many."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunewright import Launcher, PluginOptions, RecipeError, hookimpl
from tunewright.errors import TunewrightError

if TYPE_CHECKING:
    from tunewright.launch import Launched, LaunchRequest
    from tunewright.launch_section import Launch
    from tunewright.types import RunContext

_ADVANCED: Any = {"tier": "advanced"}


class Torchrun(Launcher):
    """Starts the processes with torchrun, which is part of torch.

    On several hosts the same command runs on each, with its own node_rank. With a range of nodes,
    or with restarts, hosts find each other at main_address, no node_rank is needed, and the run
    goes on from its last checkpoint with the hosts that are there.
    """

    elastic = True
    starts_one = False

    class Options(PluginOptions):
        node_rank: int = Field(0, ge=0, lt=65536, json_schema_extra=_ADVANCED)
        """Rank of this node. Not used with a range of nodes or restarts."""
        main_address: str = Field("127.0.0.1", json_schema_extra=_ADVANCED)
        """Host name or address of node 0."""
        main_port: int | None = Field(None, gt=0, lt=65536, json_schema_extra=_ADVANCED)
        """Free port on node 0. Default: any that is free with one node, 29500 with several."""
        restarts: int = Field(0, ge=0, le=10000, json_schema_extra=_ADVANCED)
        """How often processes are started again, to continue from the last checkpoint, after one of
        them was lost."""
        last_call: float = Field(30, gt=0, le=1e5, json_schema_extra=_ADVANCED)
        """With a range of nodes: seconds to wait for more, when the least number is there."""
        interface: str | None = Field(None, min_length=1, json_schema_extra=_ADVANCED)
        """Network interface between hosts, such as eth0. Default: the one that leads to
        main_address."""

    @hookimpl
    def launch(self, run: "RunContext", request: "LaunchRequest") -> "Launched":
        from tunewright_torchrun.agent import launched

        try:
            return launched(self.options, run, request)
        except RecipeError as error:  # before it has met the others
            if request.nodes != 1 and not request.dry_run:
                with suppress(TunewrightError):  # of the network: the reason is said
                    self.tell_hosts(run.recipe.launch, str(error), partial(print, file=sys.stderr))
            raise

    def tell_hosts(self, launch: "Launch", problem: str, say: Callable[[str], None]) -> None:
        if isinstance(launch.nodes, int) and not self.options.restarts:
            from tunewright_torchrun.hosts import tell

            tell(self.options, launch.nodes, problem, say)
        else:
            from tunewright_torchrun import elastic

            elastic.tell(self.options, launch.nodes, problem, say)
