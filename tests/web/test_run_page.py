"""The page of a run: its samples; and the line about the machine below the list of runs."""

import json
import os
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tunewright_web import system
from tunewright_web.processes import HOST
from tunewright_web.web import Web
from web.fakes import run_folder, stage_started, write_events


def sampled(step: int, completion: str, **rewards: float) -> str:
    event = {"event": "Sampled", "time": 100.0 + step, "stage": "grpo", "step": step}
    event |= {"prompt": f"Question {step}", "completion": completion, "rewards": rewards}
    return json.dumps(event) + "\n"


def test_samples_have_their_rewards_by_name(client: TestClient, web: Web) -> None:
    """The newest is the first; while the run goes on, the part asks for more."""
    me = {"pid": os.getpid(), "host": HOST, "started": time.time(), "step": 1, "total_steps": 9}
    folder = run_folder(web.workspace.runs / "grpo", "running", running=me)
    write_events(folder, [stage_started(9), sampled(1, "first answer", length=0.25, reward=0.5)])
    text = client.get("/runs/grpo?tab=samples").text
    assert 'data-poll="/runs/grpo/samples"' in text
    for said in ("step 1", "Question 1", "first answer", "length 0.25", "reward 0.5"):
        assert said in text, said
    more = sampled(2, "second answer", length=-1.0, reward=0.125)
    write_events(folder, [more], "a")
    part = client.get("/runs/grpo/samples", headers={"HX-Request": "true"})
    assert part.text.lstrip().startswith("<section")
    assert part.text.index("second answer") < part.text.index("first answer")
    assert "reward 0.125" in part.text
    again = {"HX-Request": "true", "If-None-Match": part.headers["ETag"]}
    assert client.get("/runs/grpo/samples", headers=again).status_code == 304


def test_samples_of_a_run_that_is_done_are_not_asked_for_again(
    client: TestClient, web: Web
) -> None:
    write_events(run_folder(web.workspace.runs / "sft"), [stage_started(9)])
    text = client.get("/runs/sft?tab=samples").text
    assert "No samples" in text
    assert "/samples" not in text.replace("tab=samples", "")


def nvidia_smi(folder: Path, said: str, code: int = 0) -> str:
    """A program of this name, alone on PATH."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    program.chmod(0o755)
    return str(folder)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_the_load_of_gpus_is_shown(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "NVIDIA H200, 37, 71680, 143771\nNVIDIA GB10, 5, [N/A], [N/A]"
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, lines))
    system._gpus.cache_clear()
    (one, other) = client.get("/api/v1/system").json()["gpus"]
    memory = {"used": 70 * 2**30, "total": 143771 * 2**20}
    assert one == {"name": "NVIDIA H200", "load": 0.37, "memory": memory}
    assert other == {"name": "NVIDIA GB10", "load": 0.05, "memory": None}  # memory is the CPU's
    text = client.get("/").text
    assert "NVIDIA H200: 37 %, 75.2 GB / 151 GB" in text
    assert "NVIDIA GB10: 5 %<" in text


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_without_a_gpu_there_is_no_line(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a driver that does not answer."""
    failing = tmp_path / "failing"
    failing.mkdir()
    for path in (str(tmp_path), nvidia_smi(failing, "no devices were found", code=6)):
        monkeypatch.setenv("PATH", path)
        system._gpus.cache_clear()
        assert client.get("/api/v1/system").json()["gpus"] == []
        assert "CPU" in client.get("/").text
