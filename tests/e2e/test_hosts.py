"""Hosts that should not train together do not, and each says why. Two real ones, in network
namespaces, train as one process does."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import forked
from e2e.sharding_setup import DATA
from e2e.test_elastic import RECIPE
from tunewright.run import train

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


# ---- no shared folder ----------------------------------------------------------------------------

#: two stages, the second of which continues from the first one's result; saved at step 3 of each
TWICE = RECIPE.replace("stage: sft", "stages: [{name: sft}, {name: sft}]")
STAGES = ["training.load_best_model_at_end=true"]
STAGES += ["dataset={name: chat, validation: 0.1}", "training.eval_steps=3"]


def apart(folder: Path, *both: str, accelerators: str = "", recipe: str = RECIPE) -> forked.Done:
    """Train on two hosts that share no folder: the same relative output, below folders of their
    own, one rank each."""
    (folder / "recipe.yaml").write_text(recipe)
    overrides = [*BATCHES, "output=run", f"accelerators=[{accelerators}]", *both]
    folders = [str(folder / name) for name in "ab"]
    for each in folders:
        Path(each).mkdir(exist_ok=True)
    arguments = json.dumps([str(folder / "recipe.yaml"), [overrides] * 2, ["", ""], folders])
    host = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return forked.run(WORKER, arguments, processes=2, patience=30, variables=host)


def interrupt(run: Path, after: int) -> None:
    """Leave a run as one that was killed after step 3 of its stage number `after`."""
    state = json.loads((run / "run.json").read_text())
    name = f"stages/{after}-sft" if (run / "stages").exists() else "."
    shutil.rmtree(run / name / "model")
    (run / name / "checkpoints" / "step-6" / "manifest.json").unlink()
    changed = {"status": "interrupted", "stages": state["stages"][: after - 1]}
    (run / "run.json").write_text(json.dumps(state | changed))


@pytest.mark.slow
@pytest.mark.parametrize("accelerators", ["", further("fsdp")])
def test_hosts_need_no_shared_folder(tmp_path: Path, accelerators: str) -> None:
    done = apart(tmp_path, *STAGES, accelerators=accelerators, recipe=TWICE)
    assert done.codes == [0, 0], done.error[-3000:]
    run = tmp_path / "a" / "run"
    saved = run / "stages" / "2-sft"
    assert list((tmp_path / "b").iterdir()) == []
    assert {"rng-0.json", "rng-1.json"} <= {
        path.name for path in (saved / "checkpoints" / "step-3").iterdir()
    }
    before = (saved / "model" / "model.safetensors").read_bytes()
    interrupt(run, 2)
    done = apart(tmp_path, *STAGES, "--resume", accelerators=accelerators, recipe=TWICE)
    assert done.codes == [0, 0], done.error[-3000:]
    assert (saved / "model" / "model.safetensors").read_bytes() == before
    assert list((tmp_path / "b").iterdir()) == []


#: a reward model, then stages that generate and ask it on both hosts
GENERATING = f"""
model: tiny
family: {{name: qwen, tiny_hidden_size: 16, tiny_layers: 1, device: cpu}}
template: chatml
stages:
  - {{name: reward, data: [{{path: {DATA}/wren_pairs.jsonl}}]}}
  - name: ppo
    rewards: [reward_model]
    max_new_tokens: 4
    ppo_epochs: 2
  - name: grpo
    rewards: [reward_model, {{name: length, target: 12}}]
    num_generations: 3
    max_new_tokens: 4
    beta: 0.1
data: [{{path: prompts.jsonl}}]
training:
  max_steps: 2
  logging_steps: 1
  learning_rate: 1.0e-3
  lr_scheduler_type: constant
  batching: random
  max_length: 256
  precision: fp32
loggers: [jsonl]
output: nowhere
"""


@pytest.mark.slow
def test_hosts_share_the_generation_of_answers(tmp_path: Path) -> None:
    asked = [f"What is {word}?" for word in ("a", "wren", "nest", "egg", "song")]
    rows = [json.dumps({"prompt": each}) for each in asked]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    done = apart(tmp_path, recipe=GENERATING)
    assert done.codes == [0, 0], done.error[-3000:]
    assert list((tmp_path / "b").iterdir()) == []
    one = ["training.per_device_train_batch_size=4", f"output={tmp_path / 'one'}"]
    train(tmp_path / "recipe.yaml", overrides=one)
    expected, found = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "one", tmp_path / "a" / "run")
    )
    assert [(line["stage"], line["step"]) for line in found] == [
        (name, step) for name in ("reward", "ppo", "grpo") for step in (1, 2)
    ]
    for theirs, ours in zip(found, expected, strict=True):
        for name in ours.keys() - {"stage", "time", "tokens_per_second", "memory"}:
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4, abs=1e-5), name


@pytest.mark.slow
def test_a_run_that_is_in_the_way_ends_all(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = f"output={tmp_path / 'a' / 'run'}"
    train(tmp_path / "recipe.yaml", overrides=["training.max_steps=1", run])
    done = apart(tmp_path, "training.max_steps=1")
    assert done.codes == [2, 1], done.error[-3000:]
    first, other = errors(done)
    assert "holds a run that is completed" in first
    assert "rank 0" in other and "has ended: see what it said there" in other


@pytest.mark.slow
@pytest.mark.parametrize("by", ["the variables", further("torchrun")])
def test_two_hosts_train_as_one_process_does(
    tmp_path: Path, hosts: tuple[str, str], by: str
) -> None:
    if by == "torchrun":
        same = [*BATCHES, f"output={tmp_path / 'run'}"]
        assert not launched(tmp_path, same, same, codes=[0, 0], netns=hosts)
    else:
        done = two(tmp_path, [], [], netns=hosts)
        assert done.codes == [0, 0], done.error[-3000:]
    one = tmp_path / "one"
    overrides = [[*BATCHES, "training.gradient_accumulation_steps=2", f"output={one}"]]
    done = forked.run(
        Path(__file__).with_name("elastic_worker.py"),
        json.dumps([[str(tmp_path / "recipe.yaml"), *overrides[0]]]),
    )
    assert done.codes == [0], done.error[-3000:]
    expected, found = (
        load_file(run / "model" / "model.safetensors") for run in (one, tmp_path / "run")
    )
    assert all(torch.allclose(found[name], expected[name], atol=2e-6) for name in expected)
