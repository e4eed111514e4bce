"""Two hosts that train together: in network namespaces, or as two processes."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forked
from e2e.test_elastic import RECIPE

WORKER = Path(__file__).with_name("host_worker.py")
SMALL = "training.per_device_train_batch_size=2"
BATCHES = ["training.batching=random", SMALL]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    """Two hosts on one bridge, 10.77.0.1 and 10.77.0.2, whose names lead to 127.0.1.1."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        how = "unshare -Urnm sh -c 'mount -t tmpfs none /run; ip link set lo up; pytest …'"
        pytest.skip(f"needs iproute2, and root or, without it: {how}")
    names = (f"tw{os.getpid()}a", f"tw{os.getpid()}b")
    bridge = f"twbr{os.getpid() % 10000}"
    commands = [f"link add {bridge} type bridge", f"link set {bridge} up"]
    for number, name in enumerate(names, 1):
        link = f"tw{os.getpid() % 10000}{number}"
        commands += [
            f"netns add {name}",
            f"link add {link} type veth peer name eth0 netns {name}",
            f"link set {link} master {bridge}",
            f"link set {link} up",
            f"-n {name} addr add 10.77.0.{number}/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} link set lo up",
        ]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def further(*values: Any) -> Any:
    """A cell that is left out for want of time."""
    return pytest.param(*values, marks=pytest.mark.long)


def two(
    folder: Path, first: list[str], second: list[str], *both: str, netns: tuple[str, str] = ("", "")
) -> forked.Done:
    (folder / "recipe.yaml").write_text(RECIPE)
    output = f"output={folder / 'run'}"
    overrides = [[*BATCHES, *each, output, *both] for each in (first, second)]
    arguments = json.dumps([str(folder / "recipe.yaml"), overrides, netns, [str(folder)] * 2])
    address = "10.77.0.1" if netns[0] else "127.0.0.1"
    return forked.run(WORKER, arguments, processes=2, patience=30, address=address)


def errors(done: forked.Done) -> list[str]:
    return [line for line in done.error.splitlines() if line.startswith("error: ")]


def launched(folder: Path, first: list[str], second: list[str], **how: Any) -> list[str]:
    """Errors of the command on two hosts. codes: their exit codes. netns: their names. nodes: of
    the recipe."""
    (folder / "recipe.yaml").write_text(RECIPE)
    netns = how.get("netns", ("", ""))
    address = "10.77.0.1" if netns[0] else "127.0.0.1"
    launch = f"main_address: {address}, main_port: {forked.free_port()}, timeout: 60"
    launch += f", nodes: {how.get('nodes', 2)}"
    overrides = [
        [f"launch={{{launch}, node_rank: {rank}}}", f"output={folder / str(rank)}", *each]
        for rank, each in enumerate((first, second))
    ]
    arguments = json.dumps([str(folder / "recipe.yaml"), overrides, netns])
    done = forked.run(WORKER.with_name("launch_worker.py"), arguments, processes=2, patience=30)
    assert done.codes == how["codes"], done.error[-3000:]
    assert "Traceback" not in done.error
    return errors(done)
