"""How a run ends that cannot go on: exit codes, and one line with the place in the recipe."""

import errno
import os
import sys

import pytest

import kernel_fakes as fakes
from kernel.run_setup import train
from tunewright import cli, folder
from tunewright.errors import RecipeError, RunError

__all__ = ["train"]


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch):
    folder.write(tmp_path, "run.json", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"run.json: cannot be written: No space left on device"):
        folder.write(tmp_path, "run.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == "old"


@pytest.mark.parametrize(
    ("fail", "code", "line"),
    [
        ("error", 1, "error: here: the model broke\n"),
        ("stop", 130, "error: stopped at step 1 (go on with: tunewright train"),
        ("bug", 1, "error: KeyError: 'oops' (this is a defect"),
    ],
)
def test_exit_codes_and_one_line(train, monkeypatch, capsys, fail, code, line):
    path = train.out.parent.parent / "r.yaml"
    path.write_text(fakes.RECIPE % train.out)
    monkeypatch.setattr(sys, "argv", ["tunewright", "train", str(path), f"stage.fail={fail}"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    error = capsys.readouterr().err
    assert exit_.value.code == code
    assert line in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def test_a_bad_recipe_exits_with_2_and_debug_shows_the_traceback(
    train, monkeypatch, capsys, tmp_path
):
    (tmp_path / "r.yaml").write_text("model: tiny\nstagee: x\noutput: a\n")
    for arguments in (
        ["recipe", "check", str(tmp_path / "r.yaml")],
        ["train", str(tmp_path / "r.yaml"), "--debug"],
    ):
        monkeypatch.setattr(sys, "argv", ["tunewright", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        assert "stagee: unknown key (did you mean 'stage'?)" in error
        assert ("Traceback" in error) == ("--debug" in arguments)


#: recipe → the place that a plugin names → what the user is told, with the line in the file
PLACES = [
    ("stage: {name: mine, fail: at %s}", "stage.fail: at", "r.yaml:10: stage.fail: at"),
    ("stage: {name: mine, fail: at %s}", "stage", "r.yaml:10: stage"),
    ("stage: {name: mine, fail: at %s}", "data.0.path", "r.yaml:9: data.0.path"),
    ("stage: {name: mine, fail: at %s}", "training.epochs", "r.yaml: training.epochs"),
    ("stage: {name: mine, fail: at %s}", "adapter.targets", "r.yaml:3: adapter.targets"),
    ("stage: {name: mine, fail: at %s}", "reward length", "reward length"),
    ("stage: {name: mine, fail: at %s}", "data/a.jsonl:17", "data/a.jsonl:17"),
    (
        "stages:\n  - {name: mine, fail: at %s, training: {\n    epochs: 2}}",
        "training.epochs",
        "r.yaml:12: stages.0.training.epochs",
    ),
    (
        "stages:\n  - mine\n  - {name: score, fail: at %s}",
        "stage.fail",
        "r.yaml:12: stages.1.fail",
    ),
]


@pytest.mark.parametrize(("stage", "place", "said"), PLACES)
def test_errors_of_a_field_have_its_line(train, stage, place, said):
    written = stage % place if ":" not in place else stage.replace("at %s", f"'at {place}'")
    with pytest.raises(RecipeError, match="is wrong") as error:
        train(recipe=fakes.RECIPE.replace("stage: mine", written))
    assert error.value.place.removeprefix(f"{train.out.parent.parent}/") == said


def test_errors_of_a_field_of_the_command_line_say_so(train):
    with pytest.raises(RecipeError) as error:
        train("stage.fail=at training.epochs", "training.epochs=3")
    assert error.value.place == "command line: training.epochs"
