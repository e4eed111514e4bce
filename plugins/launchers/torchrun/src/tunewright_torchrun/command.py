"""Command line of torchrun."""

import socket
from typing import TYPE_CHECKING, Any

from tunewright.errors import RecipeError
from tunewright.folder import RUN_FILE

if TYPE_CHECKING:
    from tunewright.launch import LaunchRequest

_TO_COME = 600  # seconds to wait for other hosts
PORT = 29500  # torchrun's own default: all hosts have to know it


def command(options: Any, request: "LaunchRequest", timeout: float | None) -> list[str]:
    """Arguments of torchrun. Raises RecipeError where a run that is there is in the way."""
    seconds = int(timeout or _TO_COME)
    own = [f"--nproc-per-node={request.processes}", f"--nnodes={request.nodes}"]
    arguments = request.argv
    port = options.main_port or (PORT if request.nodes != 1 else _free_port())
    if is_elastic(options, request):
        own += _elastic(options, port, seconds)
        arguments = _continuing(request)
    else:
        own += [
            f"--node-rank={options.node_rank}",
            f"--master-addr={options.main_address}",
            f"--master-port={port}",
            f"--rdzv-conf=timeout={seconds}",
        ]
    # other signals are the agent's
    return [*own, "--signals-to-handle=SIGQUIT", "--module", "tunewright", *arguments]


def is_elastic(options: Any, request: "LaunchRequest") -> bool:
    """Whether processes are started again when one is lost."""
    return options.restarts > 0 or isinstance(request.nodes, str)


def least_nodes(nodes: int | str) -> int:
    """Nodes without which the run does not go on. nodes: number, or a range "2:4"."""
    return int(str(nodes).partition(":")[0])


def most_nodes(nodes: int | str) -> int:
    """Nodes that there are at most. nodes: number, or a range "2:4"."""
    return int(str(nodes).rpartition(":")[2])


def _elastic(options: Any, port: int, seconds: int) -> list[str]:
    address = options.main_address
    own = own_address(address)
    # c10d knows loopback and the addresses of the host's name, and no others
    conf = {} if own.startswith("127.") else {"is_host": int(is_own(address))}
    conf |= {
        "join_timeout": seconds,
        "last_call_timeout": int(options.last_call) or 1,
        "read_timeout": seconds,
    }
    return [
        f"--max-restarts={options.restarts or 100}",
        "--rdzv-backend=c10d",
        "--rdzv-id=tunewright",
        f"--rdzv-endpoint={address}:{port}",
        f"--rdzv-conf={','.join(f'{name}={value}' for name, value in conf.items())}",
        f"--local-addr={own}",
    ]


def _continuing(request: "LaunchRequest") -> list[str]:
    """Arguments with --resume, for every start after the first."""
    if "--resume" in request.argv:
        return request.argv
    if "--overwrite" in request.argv or (request.folder / RUN_FILE).exists():
        raise RecipeError(
            "a run that is continued after a loss cannot replace another one",
            place=str(request.folder),
            hint="--resume continues the run that is there, or is empty; or remove the folder",
        )
    return [*request.argv, "--resume"]


def _free_port() -> int:
    """A port for a run on this host alone: several of them run side by side."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def own_address(target: str) -> str:
    """Address of this host on the route to another. Raises RecipeError where there is none."""
    try:
        found = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[4])  # sends nothing: it finds the route
            return str(probe.getsockname()[0])
    except OSError as error:
        problem = f"{target} cannot be reached: {error.strerror or error}"
        raise RecipeError(problem, place="launch.main_address") from error


def is_own(address: str) -> bool:
    """Whether this host has the address."""
    return any(
        own_address(address) == found[4][0]
        for found in socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)
    )
