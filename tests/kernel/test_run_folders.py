"""Folders of runs: what is removed, kept and followed, and what a damaged one says."""

import json
import sys

import pytest

from kernel.state_setup import state_of, train
from tunewright import check, folder, run
from tunewright.errors import RecipeError, RunError

__all__ = ["train"]


def test_overwrite_removes_what_the_run_made_and_nothing_else(train):
    train()
    (train.out / "notes.txt").write_text("mine")
    (train.out / "checkpoints").mkdir()
    (train.out / "old").symlink_to(train.out.parent)
    train(overwrite=True)
    assert (train.out / "notes.txt").read_text() == "mine"
    assert (train.out / "old").is_symlink()
    assert not (train.out / "checkpoints").exists()
    assert state_of(train.out)["artifacts"] == ["checkpoints", "model", "talk"]


def test_a_folder_that_no_run_made_is_kept(train):
    (train.out / "model").mkdir(parents=True)
    (train.out / "model/x").write_text("a week of work")
    for overwrite in (False, True):
        with pytest.raises(RecipeError) as error:
            train(overwrite=overwrite)
        assert "(choose another `output`" in str(error.value)
    assert (train.out / "model/x").read_text() == "a week of work"
    assert not (train.out / "run.json").exists()


def test_a_link_that_a_run_left_is_removed_and_not_followed(train):
    train()
    elsewhere = train.out.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x").write_text("mine")
    (train.out / "checkpoints").symlink_to(elsewhere)
    train(overwrite=True)
    assert (elsewhere / "x").read_text() == "mine"
    assert not (train.out / "checkpoints").exists()


def test_a_run_of_an_earlier_version_is_removed_by_the_names_of_that_time(train):
    train()
    state = state_of(train.out)
    del state["artifacts"]
    (train.out / "run.json").write_text(json.dumps(state))
    (train.out / "loss.png").write_text("x")
    (train.out / "talk").unlink()
    train(overwrite=True)
    assert not (train.out / "loss.png").exists()


def test_what_a_killed_process_left_is_in_nobodys_way(train):
    train.out.mkdir()
    (train.out / ".run.json.new").write_text("{")
    train()
    state = state_of(train.out) | {"status": "running", "running": {"pid": 1}}
    (train.out / "run.json").write_text(json.dumps(state))
    with pytest.raises(RecipeError, match=r"holds a run that is interrupted \(killed\)"):
        train()


DAMAGED = ["", "[]", "{}", "{", "7", '{"stages": []}', "[" * 100_000, '{"status": 5}', "\x00"]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_run_json_has_a_way_out(train, text):
    train()
    (train.out / "run.json").write_text(text)
    for how in ({}, {"resume": True}):
        with pytest.raises(RunError, match=r"run.json: is damaged: ") as error:
            train(**how)
        assert "--overwrite" in error.value.hint
    train(overwrite=True)
    assert state_of(train.out)["status"] == "completed"


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../elsewhere"},
        {"path": "/etc"},
        {"path": "link"},
        {"path": "a/../../b"},
        {"path": 5},
        {"path": "\x00"},
        {"path": "loop"},
        {"path": "gone"},
        {"steps": "x"},
        {"steps": float("inf")},
        {"weights": "pickle"},
        {"metrics": 5},
        {"weights": None},
    ],
    ids=str,
)
def test_a_stage_of_a_stranger_stays_in_its_folder(tmp_path, change):
    for name in ("out/model", "elsewhere", "b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/loop").symlink_to(tmp_path / "out/loop")
    good = {"path": "model", "weights": "model", "steps": 1, "tokens": 1, "metrics": {}}
    assert folder.result(tmp_path / "out", good).path == tmp_path / "out/model"
    with pytest.raises(RunError):
        folder.result(tmp_path / "out", good | change)


@pytest.mark.parametrize("stage", [5, None, [], "x", {}], ids=str)
def test_a_stage_that_is_none(tmp_path, stage):
    with pytest.raises(RunError, match=r"run.json: describes no stage"):
        folder.result(tmp_path, stage)


def test_a_run_folder_without_its_model_is_an_error_and_no_name_of_a_hub(train):
    train()
    opened = run.open_run(train.out)
    (train.out / "model").rename(train.out / "moved")
    with pytest.raises(RunError, match=r"out/model: there is no such folder"):
        opened.load_policy()
    calls = [call for call in sys.modules["tw_mine"].CALLS if isinstance(call, tuple)]
    loaded = [call[1] for call in calls if call[0] == "load_model"]
    assert loaded == ["some/model"]  # of the training itself


def test_a_copy_of_a_checkpoint_is_none(tmp_path):
    for name in ("step-3", "step-12", "step-12-backup", "step-x", "step-", "step-99", "step-²"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        if name != "step-99":
            (tmp_path / "checkpoints" / name / "manifest.json").touch()
    assert folder.last_checkpoint(tmp_path) == tmp_path / "checkpoints/step-12"


def test_the_home_folder_may_be_written_as_a_tilde(train, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    result = train("output=~/runs/a")
    assert result.path == tmp_path / "home/runs/a/model"
    assert not (tmp_path / "~").exists()
    assert run.open_run("~/runs/a").folder == tmp_path / "home/runs/a"


def test_resolved_recipes_can_be_trained_twice(train, tmp_path):
    train()
    resolved = check.resolve(tmp_path / "r.yaml")
    assert run.train(resolved, overwrite=True).steps == run.train(resolved, overwrite=True).steps
