"""The process group of a run, and what is said when it breaks."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from tunewright.errors import LostRank
from tunewright_hf.distributed.lost import who_left
from tunewright_hf.distributed.store import TO_ANSWER

__all__ = ["group_timeout", "naming_lost_ranks", "open_group"]

#: in messages of gloo and NCCL, where another process is gone or does not answer
_LOST = ("Connection closed", "Connection reset", "Timed out", "NCCL", "Broken pipe", "Read error")


def group_timeout(run: Any) -> timedelta:
    """Time that a rank waits for the others in a collective."""
    return timedelta(seconds=run.recipe.launch.timeout or TO_ANSWER)


def open_group(run: Any, device: torch.device) -> None:
    """Open the process group on CPUs, where accelerate would pass on no timeout; on GPUs it opens
    it. All ranks call it together."""
    if run.world_size == 1 or torch.distributed.is_initialized():
        return
    if name := interface_to(os.environ["MASTER_ADDR"]):
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, name)
    if device.type == "cpu":
        torch.distributed.init_process_group("gloo", timeout=group_timeout(run))


def interface_to(address: str) -> str | None:
    """Name of the network interface that reaches a host; None for this one's loopback.

    gloo would take that of the own host name, which Debian resolves to 127.0.1.1.
    """
    for family, _, _, _, place in socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(place)  # sends nothing: it finds the route
            except OSError:
                continue
            own = probe.getsockname()[0]
        if own.startswith("127.") or own == "::1":
            return None
        for name, addresses in psutil.net_if_addrs().items():
            if any(each.address.partition("%")[0] == own for each in addresses):
                return name
    return None


@contextmanager
def naming_lost_ranks(run: Any, step: Callable[[], int]) -> Iterator[None]:
    """Raise LostRank, with the step, for errors of gloo and NCCL where another process has ended or
    is silent. step: the last one that was made."""
    try:
        yield
    except LostRank as error:  # found where ranks exchange values
        problem = f"{error.problem}, after step {step()}"
        raise LostRank(problem, place=error.place, hint=error.hint) from error
    except RuntimeError as error:
        said = str(error)
        if run.world_size == 1 or not any(sign in said for sign in _LOST):
            raise
        who = who_left(run.rank, run.world_size) or "another process is gone, or silent"
        raise LostRank(
            f"{who}, after step {step()}",
            place="launch",
            hint="go on with --resume, with as many processes as there are",
        ) from error
