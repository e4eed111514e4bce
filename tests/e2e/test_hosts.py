"""Hosts that should not train together do not, and each says why."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from e2e.hosts_setup import SMALL, errors, further, hosts, launched, two
from e2e.test_elastic import RECIPE

__all__ = ["hosts"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("training.learning_rate=5e-3", "has training.learning_rate 0.005, rank 0 on"),
        further("training.max_steps=7", "has training.max_steps 7, rank 0 on"),
    ],
)
def test_another_recipe_ends_all_before_anything_loads(
    tmp_path: Path, second: str, said: str
) -> None:
    done = two(tmp_path, [], [second])
    assert done.codes == [1, 1], done.error[-3000:]
    first, other = errors(done)
    assert first == other and "launch: rank 1 on " in first and said in first


@pytest.mark.slow
def test_other_data_ends_all_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    line = RECIPE.partition("path: ")[2].partition("}")[0]
    part = tmp_path / "part.jsonl"
    part.write_text("".join(Path(line).read_text("utf-8").splitlines(keepends=True)[:40]))
    done = two(tmp_path, [], [f"data=[{{path: {part}}}]"])
    assert done.codes == [1, 1], done.error[-3000:]
    first, other = errors(done)
    assert first == other and "rank 1 on " in first and "has data of fingerprint" in first


@pytest.mark.slow
def test_a_mistake_on_one_host_ends_the_other(tmp_path: Path) -> None:
    lost = f"data=[{{path: {tmp_path / 'lost.jsonl'}}}]"
    done = two(tmp_path, [], [lost], "data_root=/")
    assert done.codes == [1, 2], done.error[-3000:]
    first, other = errors(done)
    assert "lost.jsonl" in other
    assert "rank 1 on " in first and "has ended: see what it said there" in first


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0, further(1)])  # rank 0 holds the store
def test_a_mistake_in_a_recipe_ends_the_other(tmp_path: Path, wrong: int) -> None:
    hosts: list[list[str]] = [[], []]
    hosts[wrong].append("training.max_steps=six")
    done = two(tmp_path, *hosts)
    assert done.codes == [1 + (wrong == 0), 1 + (wrong == 1)], done.error[-3000:]
    lines = errors(done)
    assert "max_steps" in lines[wrong]
    assert f"rank {wrong} on " in lines[1 - wrong]
    assert "has ended: see what it said there" in lines[1 - wrong]


@pytest.mark.slow
@pytest.mark.parametrize("dies", [1, further(0)])
def test_a_lost_rank_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: int) -> None:
    monkeypatch.setenv("TW_DIES", str(dies))
    # it is killed in a step, or while the other one gathers what a checkpoint needs of it
    done = two(tmp_path, [], [], "training.max_steps=100000", "launch.timeout=5")
    assert sorted(done.codes) == [-9, 1] and done.codes[dies] == -9, done.error[-3000:]
    (line,) = errors(done)
    named = f"lost rank 1 ({socket.gethostname()})" if dies else "lost rank 0, after step "
    assert named in line and "go on with --resume" in line


@pytest.mark.long  # where there are no network namespaces
def test_a_host_that_is_silent_ends_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TW_SILENT", "1")
    done = two(tmp_path, [], [], "training.max_steps=100000", "launch.timeout=5")
    assert done.codes == [1, -9], done.error[-3000:]
    (line,) = errors(done)
    assert f"lost rank 1 ({socket.gethostname()}), after step " in line


@pytest.mark.slow
def test_hosts_whose_network_is_cut_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, str]
) -> None:
    monkeypatch.setenv("TW_CUT", "1")
    more = ["training.max_steps=100000", "launch.timeout=5"]
    done = two(tmp_path, [], [], *more, netns=hosts)
    subprocess.run(["ip", "-n", hosts[1], "link", "set", "eth0", "up"], check=True)
    assert done.codes == [1, 1], done.error[-3000:]
    first, other = errors(done)
    assert f"lost rank 1 ({socket.gethostname()}), after step " in first
    assert "lost rank 0, after step " in other and "go on with --resume" in other


# ---- before torchrun starts ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("training.max_steps=six", "training.max_steps: found 'six'"),
        further("data=[{path: lost.jsonl}]", "lost.jsonl"),
        further("adapter=loraa", "no installed plugin gives the adapter 'loraa'"),
        further("launch.node_rnk=1", "launch.node_rnk: unknown key"),
    ],
)
def test_a_mistake_on_one_host_ends_the_other_before_torchrun(
    tmp_path: Path, wrong: str, said: str
) -> None:
    lines = launched(tmp_path, [], [wrong], codes=[1, 2])
    assert f"launch: node 1 on {socket.gethostname()}: " in lines[0]
    assert said in lines[0] and said in lines[1]


@pytest.mark.slow
def test_a_mistake_on_the_first_host_ends_the_other(tmp_path: Path, hosts: tuple[str, str]) -> None:
    lines = launched(tmp_path, ["training.max_steps=six"], [], codes=[2, 1], netns=hosts)
    assert f"launch: node 0 on {socket.gethostname()}: " in lines[1]
    assert "training.max_steps: found 'six'" in lines[1]


@pytest.mark.long
def test_the_same_mistake_on_both(tmp_path: Path) -> None:
    wrong = ["training.max_steps=six"]
    assert len(launched(tmp_path, wrong, wrong, codes=[2, 2])) == 2


#: hosts that may come and go
RANGE = ["training.rows_per_step=12", "training.batching=random", SMALL]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [1, further(0)])
def test_a_mistake_on_one_of_a_range_of_hosts_ends_the_other(
    tmp_path: Path, hosts: tuple[str, str], wrong: int
) -> None:
    overrides = [RANGE, RANGE]
    overrides[wrong] = [*RANGE, "training.max_steps=six"]
    codes = [1 + (wrong == 0), 1 + (wrong == 1)]
    lines = launched(tmp_path, *overrides, codes=codes, nodes="'2:3'", netns=hosts)
    assert f"launch: host {socket.gethostname()}: " in lines[1 - wrong]
    assert all("training.max_steps: found 'six'" in line for line in lines)


@pytest.mark.long
def test_a_mistake_of_a_worker_is_not_tried_again(tmp_path: Path, hosts: tuple[str, str]) -> None:
    """Data is compared when all have begun."""
    rows = Path(RECIPE.partition("path: ")[2].partition("}")[0]).read_text("utf-8").splitlines()
    (tmp_path / "part.jsonl").write_text("\n".join(rows[:40]))
    other = [*RANGE, f"data=[{{path: {tmp_path / 'part.jsonl'}}}]"]
    how: dict[str, Any] = {"nodes": "'2:3'", "netns": hosts}
    lines = launched(tmp_path, RANGE, other, codes=[1, 1], **how)
    assert any("has data of fingerprint" in line for line in lines)


@pytest.mark.long  # facts that differ: tests/training/test_meeting.py
def test_hosts_with_another_number_of_processes(tmp_path: Path) -> None:
    lines = launched(tmp_path, [], ["launch.processes=2"], codes=[1, 1])
    assert "node 1 on " in lines[0] and "has launch.processes 2, node 0 on " in lines[0]
    assert lines[0] == lines[1]


@pytest.mark.long
def test_two_hosts_with_one_number(tmp_path: Path, hosts: tuple[str, str]) -> None:
    lines = launched(tmp_path, [], ["launch.node_rank=0"], codes=[1, 1], netns=hosts)
    assert "node 0 came twice, also from " in lines[0] and lines[0] == lines[1]
