"""`tunewright sweep`: trials of a stage without torch, whose loss is known."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

import kernel_fakes as fakes
from tunewright import RecipeError, RunError, check
from tunewright.folder import locked
from tunewright_sweep import search, space
from tunewright_sweep.search import Asked, sweep

SOURCE = (
    fakes.SOURCE
    + """
from tunewright import Dataset as DatasetBase

class Sets(DatasetBase):
    class Entry(PluginOptions):
        path: str

    @hookimpl
    def build_dataset(self, request):
        counts = {"rows_read": 3, "dropped": {}}
        return Data([1, 2], **counts, notes=[], fingerprint=request.entries[0].path)

class Valley(Stage):
    '''The loss is the square of the distance of rate from 3, and falls to it in `steps` steps.'''
    rows = "messages"
    eval_metrics = ("loss", "accuracy")

    class Options(PluginOptions):
        rate: float = 0.0
        note: object = None
        steps: int = 2
        pause: float = 0.0

    @hookimpl
    def train_stage(self, run, request):
        steps, loss = self.options.steps, (self.options.rate - 3) ** 2
        if self.options.rate == 13:
            raise RunError("13 is no rate")
        started = {"stage": self.name, "number": 1, "of": 1, "total_steps": steps}
        run.emit(events.StageStarted(**started))
        for step in range(1, steps + 1):
            time.sleep(self.options.pause)
            metrics = {"loss": loss + steps - step, "accuracy": -loss}
            run.emit(
                events.Evaluated(stage=self.name, step=step, dataset="held", metrics=metrics)
            )
            if request.stop_requested():
                raise Stopped(f"stopped at step {step}")
        path = request.folder / "model"
        path.mkdir(parents=True, exist_ok=True)
        ended = {"steps": steps, "path": str(path), "metrics": metrics}
        run.emit(events.StageFinished(stage=self.name, **ended))
        return StageResult(path, "model", steps=steps, tokens=10, metrics=metrics)
"""
)


@pytest.fixture
def recipe(install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    points = {**fakes.POINTS, "stage": {"valley": "tw_mine:Valley"}}
    install("tw-mine", points | {"dataset": {"mine": "tw_mine:Sets"}}, SOURCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "recipe.yaml"
    text = fakes.RECIPE % (tmp_path / "out")
    text = text.replace("stage: mine", "stage: {name: valley}").replace("[mine]", "[]")
    path.write_text(text + "eval_data: {held: [{path: b.jsonl}]}\n")
    return path


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_a_grid_tries_each_combination_once(recipe: Path, tmp_path: Path) -> None:
    varied = ("stage.rate=[0, 2.5, 13]", "stage.note=[[1, a], null]")
    asked = Asked(recipe, tmp_path / "sweep", varied=varied, sampler="grid", jobs=2)
    sweep(asked)
    found = results(tmp_path / "sweep")
    tried = [(row["fields"]["stage.rate"], row["fields"]["stage.note"]) for row in found["trials"]]
    every = [(rate, note) for rate in (0, 2.5, 13) for note in ([1, "a"], None)]
    assert sorted(tried, key=repr) == sorted(every, key=repr)
    values = {row["fields"]["stage.rate"]: row["value"] for row in found["trials"]}
    assert values == {0: 9.0, 2.5: 0.25, 13: None}
    errors = {row["error"] for row in found["trials"] if row["state"] == "failed"}
    assert errors == {"13 is no rate"}
    assert found["best"]["fields"]["stage.rate"] == 2.5
    best = check.resolve(tmp_path / "sweep/best.yaml").recipe.as_dict()
    assert best["stages"][0]["rate"] == 2.5 and best["output"] == str(tmp_path / "out")
    assert (tmp_path / "sweep/results.png").read_bytes().startswith(b"\x89PNG")
    sweep(asked)  # all are there: nothing is run again
    assert results(tmp_path / "sweep") == found


def test_tpe_comes_close_and_goes_on_with_new_values(recipe: Path, tmp_path: Path) -> None:
    varied = ("stage.rate={low: -10.0, high: 10.0}",)
    asked = {"varied": varied, "metric": "held_accuracy", "jobs": 2}
    sweep(Asked(recipe, tmp_path / "sweep", trials=3, **asked))
    sweep(Asked(recipe, tmp_path / "sweep", trials=5, **asked))
    found = results(tmp_path / "sweep")
    rates = [row["fields"]["stage.rate"] for row in found["trials"]]
    assert len(set(rates)) == 5 and found["direction"] == "maximize"
    assert found["best"]["value"] == max(row["value"] for row in found["trials"])


def test_a_hopeless_trial_is_ended(recipe: Path, tmp_path: Path) -> None:
    rates = "stage.rate=[3, 3.1, 3.2, 3.3, 3.4, 99]"
    asked = Asked(
        recipe,
        tmp_path / "sweep",
        overrides=("stage.steps=6", "stage.pause=0.4"),
        varied=(rates,),
        sampler="grid",
        prune=True,
    )
    sweep(asked)
    *others, last = results(tmp_path / "sweep")["trials"]
    assert [row["state"] for row in others] == ["complete"] * 5
    assert last["fields"] == {"stage.rate": 99} and last["state"] == "pruned"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_or_killed_it_goes_on(recipe: Path, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "sweep"
    fields = ["--vary", "stage.rate=[1, 2, 4]", "stage.pause=0.3"]
    command = [sys.executable, "-m", "tunewright", "sweep", str(recipe), "--output", str(folder)]
    command += ["--sampler", "grid", *fields]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: list(folder.glob("trials/*/events.jsonl")))
        first.send_signal(number)
        said = first.communicate(timeout=60)[1]
    finally:
        first.kill()
        first.wait()
    assert first.returncode == (130 if number == signal.SIGINT else -number), said
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = results(folder)
    assert [row["state"] for row in found["trials"]] == ["complete"] * 3
    assert sorted(row["fields"]["stage.rate"] for row in found["trials"]) == [1, 2, 4]
    assert len(list(folder.glob("trials/*/run.json"))) == 3


def until(there: Callable[[], Any]) -> None:
    for _ in range(600):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come")


def test_mistakes_are_told_before_anything_runs(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    with pytest.raises(RecipeError, match="no field is varied"):
        sweep(Asked(recipe, out))
    with pytest.raises(RecipeError, match=r"no evaluation of valley gives 'speed'.*held_accuracy"):
        sweep(Asked(recipe, out, varied=("stage.rate=[1]",), metric="held_speed"))
    with pytest.raises(RecipeError, match="has no step, and a grid needs one"):
        sweep(Asked(recipe, out, varied=("stage.rate={low: 0.0, high: 1.0}",), sampler="grid"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds something else than a sweep"):
        sweep(Asked(recipe, tmp_path / "other", varied=("stage.rate=[1]",)), overwrite=True)
    assert (tmp_path / "other/mine.txt").read_text() == "mine"
    assert not out.exists()


def test_overwrite_removes_what_a_sweep_made_and_nothing_else(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    sweep(Asked(recipe, folder, varied=("stage.rate=[1, 2]",), sampler="grid"))
    (folder / "notes.txt").write_text("mine")
    sweep(Asked(recipe, folder, varied=("stage.rate=[3]",), sampler="grid"), overwrite=True)
    assert [row["fields"]["stage.rate"] for row in results(folder)["trials"]] == [3]
    assert [each.name for each in (folder / "trials").iterdir() if each.is_dir()] == ["trial-0000"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_another_recipe_is_not_mixed_in_and_no_secret_is_kept(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    asked: dict[str, Any] = {"varied": ("stage.rate=[1]",), "sampler": "grid"}
    sweep(Asked(recipe, folder, overrides=("stage.note=a-secret-key",), **asked))
    assert b"a-secret-key" not in (folder / "study.db").read_bytes()
    with pytest.raises(RecipeError, match="a sweep of a recipe, or of overrides, that were others"):
        sweep(Asked(recipe, folder, overrides=("stage.note=another",), **asked))


def test_folders_that_cannot_be_used_are_one_line(recipe: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"varied": ("stage.rate=[1]",), "sampler": "grid"}
    with pytest.raises(RecipeError, match="is a file, expected a folder"):
        sweep(Asked(recipe, recipe, **asked))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "study.db").write_text("no database" * 100)
    with pytest.raises(RunError, match=r"study\.db: cannot be read") as raised:
        sweep(Asked(recipe, broken, **asked))
    assert len(raised.value.lines) == 1
    with locked(tmp_path / "busy", 0), pytest.raises(RunError, match="another run is writing here"):
        sweep(Asked(recipe, tmp_path / "busy", **asked))
    with pytest.raises(RecipeError, match="is the sweep's own"):
        sweep(Asked(recipe, tmp_path / "new", varied=("output=[a, b]",)))


def test_where_the_first_trials_all_fail_it_ends(recipe: Path, tmp_path: Path) -> None:
    asked = Asked(recipe, tmp_path / "sweep", varied=("stage.rat=[1, 2, 3, 4, 5]",), sampler="grid")
    with pytest.raises(RunError, match="no trial succeeded"):
        sweep(asked)
    found = results(tmp_path / "sweep")["trials"]
    assert len(found) == 3 and all("did you mean 'rate'" in row["error"] for row in found)
    with pytest.raises(RecipeError, match="holds a sweep whose fields was"):
        sweep(Asked(recipe, tmp_path / "sweep", varied=("stage.rate=[1]",), sampler="grid"))


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("a", "expected KEY=VALUES"),
        ("a=3", r"found 3, expected \[VALUE"),
        ("a=[]", r"found \[\], expected \[VALUE"),
        ("a=[1, 1]", "holds a value twice"),
        ("a={low: 1}", "high is missing"),
        ("a={low: 1, hihg: 2}", "high is missing"),
        ("a={low: 1, high: 2, lgo: true}", "'lgo' is no part of a range"),
        ("a={low: 2, high: 1}", "low is 2, expected less than high, 1"),
        ("a={low: 0, high: 1, log: true}", "expected more than 0 with log"),
        ("a={low: 1, high: 9, log: true, step: 2}", "exclude each other"),
        ("a={low: 1, high: 9, step: 0.5}", "expected an integer as low and high are"),
        ("a={low: one, high: 9}", "low Input should be a valid"),
        ("a={low: .nan, high: 9}", "low Input should be a finite number"),
    ],
)
def test_wrong_values_are_one_line(written: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem) as raised:
        space.read((written,), None)
    assert len(raised.value.lines) == 1


def test_a_file_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "training.learning_rate: {low: 1e-5, high: 1e-3, log: true}\nadapter.rank: [8]\n"
    )
    found = space.read(("adapter.rank=[16, 32]",), file)
    assert found["adapter.rank"] == [16, 32]
    assert found["training.learning_rate"] == space.Range(low=1e-5, high=1e-3, log=True)
    assert space.combinations({"a": space.Range(low=1, high=7, step=3)}) == {"a": [1, 4, 7]}


def test_devices_are_divided(monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    asked = Asked(recipe, tmp_path / "sweep", varied=("stage.rate=[1]",), jobs=2)
    metric = search.judged(check.resolve(recipe), None, None)
    found = search.Search(asked, space.read(asked.varied, None), metric, optuna.create_study())
    shares = [found._devices(place)["CUDA_VISIBLE_DEVICES"] for place in range(2)]
    assert shares == ["4,5", "6,7"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"
    assert (metric.of, metric.name, metric.rises) == ("held", "loss", False)
    saved = yaml.safe_load(recipe.read_text())
    assert saved["stage"] == {"name": "valley"}
