"""States and checkpoints on disk: exact, without pickle, whole or not at all."""

import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tunewright import RunError
from tunewright_hf.checkpoints import folder
from tunewright_hf.checkpoints.folder import (
    checkpoints,
    latest_checkpoint,
    rotate,
    verify,
    write_checkpoint,
)
from tunewright_hf.checkpoints.state_codec import load_state, rng_state, save_state, set_rng_state


def written(folder: Path, step: int, text: str = "state") -> Path:
    path = folder / f"step-{step}"
    write_checkpoint(
        path, lambda temporary: (temporary / "a.json").write_text(text), facts={"step": step}
    )
    return path


def test_nested_state_comes_back_as_it_was(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "state": {0: {"step": torch.tensor(3.0), "qmap": {"inner": (1, [2.5, None])}}, 1: {}},
        "groups": [{"betas": (0.9, 0.999), "params": [0, 1], "fused": None, "on": True}],
        "$odd": "text",
        "numbers": [float("inf"), float("-inf"), 0.1, 2**70],
        "views": [shared[:3], shared, shared.view(2, 3).t()],
        "kinds": [
            torch.tensor([1, 2], dtype=torch.uint8),
            torch.randn(2).bfloat16(),
            torch.tensor([]),
        ],
    }
    save_state(state, tmp_path, "it")
    back = load_state(tmp_path, "it")
    assert back.pop("$odd") == state.pop("$odd")
    assert back.pop("groups") == state.pop("groups")
    assert back["state"][0].pop("qmap") == state["state"][0].pop("qmap")
    torch.testing.assert_close(back, state, rtol=0, atol=0)
    assert list(back["state"]) == [0, 1]
    assert back["kinds"][1].dtype == torch.bfloat16


def test_not_a_number_comes_back(tmp_path):
    save_state([float("nan")], tmp_path, "it")
    assert np.isnan(load_state(tmp_path, "it")[0])


@pytest.mark.parametrize(
    "thing", [object(), {1, 2}, b"bytes", torch.float32, torch.eye(2).to_sparse(), lambda: 0]
)
def test_what_cannot_be_held_is_refused_by_its_place(tmp_path, thing):
    with pytest.raises(
        RunError, match=r"it\['state'\]\[0\] is a .* which a checkpoint cannot hold"
    ):
        save_state({"state": [thing]}, tmp_path, "it")


def test_random_numbers_go_on_where_they_were(tmp_path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(2).tolist()

    save_state(rng_state(), tmp_path, "rng")
    expected = draw()
    draw()
    set_rng_state(load_state(tmp_path, "rng"))
    assert draw() == expected


def test_the_manifest_names_every_file_and_is_verified(tmp_path):
    path = written(tmp_path, 3)
    assert verify(path)["step"] == 3
    (path / "a.json").write_text("stale")  # of the same size
    assert latest_checkpoint(tmp_path) == path
    with pytest.raises(RunError, match="SHA-256 differs"):
        verify(path)


def test_torn_checkpoints_are_ignored(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    good = written(tmp_path, 9)
    (written(tmp_path, 10) / "manifest.json").unlink()
    (written(tmp_path, 11) / "a.json").write_text("shorter")
    (written(tmp_path, 12) / "a.json").unlink()
    (written(tmp_path, 13) / "manifest.json").write_text('{"files": {')
    (tmp_path / "step-14").mkdir()
    (tmp_path / ".step-15.new").mkdir()
    (tmp_path / "step-new").mkdir()
    assert latest_checkpoint(tmp_path) == good


def test_steps_count_not_times_and_not_letters(tmp_path):
    for step in (100, 20, 3):
        written(tmp_path, step)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-3", "step-20", "step-100"]
    rotate(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-100", "step-20"]


def test_a_step_that_is_reached_again_replaces_the_old_one(tmp_path):
    written(tmp_path, 4, "old")
    path = written(tmp_path, 4, "new one")
    assert verify(path)
    assert (path / "a.json").read_text() == "new one"
    assert [each.name for each in tmp_path.iterdir()] == ["step-4"]


@pytest.mark.parametrize("fails_in", ["writer", "sync", "rename"])
def test_a_full_disk_is_one_clear_line_and_nothing_is_lost(tmp_path, monkeypatch, fails_in):
    old = written(tmp_path, 4)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails_in != "writer":
        monkeypatch.setattr(folder.os, "fsync" if fails_in == "sync" else "replace", full)
    with pytest.raises(RunError) as caught:
        write_checkpoint(
            tmp_path / "step-5", full if fails_in == "writer" else Path.touch, facts={}
        )
    assert "No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-4"]
    assert verify(old)


def test_safetensors_own_errors_become_ours(tmp_path):
    resource = pytest.importorskip("resource", reason="Windows has no limits on file sizes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def writer(folder):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            save_state({"weights": torch.zeros(100_000)}, folder, "it")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with pytest.raises(RunError, match="File too large"):
        write_checkpoint(tmp_path / "step-5", writer, facts={})
    assert not list(tmp_path.iterdir())


def test_killed_while_writing(tmp_path):
    def killed(folder):
        (folder / "a.json").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "step-5", killed, facts={})
    assert latest_checkpoint(tmp_path) is None
    assert (
        latest_checkpoint(written(tmp_path, 5).parent) == tmp_path / "step-5"
    )  # what was left is no obstacle
    assert json.loads((tmp_path / "step-5" / "manifest.json").read_text())["format"] == 1
