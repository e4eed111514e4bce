"""A whole run with plugins that only write down what they were asked."""

import json

import pytest

import kernel_fakes as fakes
from kernel.run_setup import calls, told, train
from tunewright import check, detection, events, folder, report, run
from tunewright.errors import RecipeError, RunError, Stopped

__all__ = ["train"]


def test_the_steps_of_a_run_in_order(train):
    result = train()
    assert [call[0] for call in calls()] == [
        "load_model",
        "apply_adapter",
        "build_dataset",
        "prepare_adapter",
        "train_stage",
    ]
    assert calls()[0] == ("load_model", "some/model", "causal_lm")
    assert calls()[2:4] == [
        ("build_dataset", "messages", ["a.jsonl"]),
        ("prepare_adapter", "a.jsonl"),
    ]
    assert result.path == train.out / "model"
    assert told() == [
        "RunStarted",
        "StepStarted",
        "StepStarted",
        "StepStarted",
        "Notice",
        "Notice",
        "StepStarted",
        "Logged",
        "StageFinished",
        "RunFinished",
    ]


def test_the_run_folder_describes_itself(train):
    train()
    state = json.loads((train.out / "run.json").read_text())
    assert state["status"] == "completed"
    assert state["seed"] == 42
    assert state["plugins"]["stage mine"] == "tw-mine 1.0"
    assert state["libraries"]["tunewright"] == "0.1.0"
    assert state["data"] == {"0": "a.jsonl"}
    assert state["stages"][0] == {
        "name": "mine",
        "path": "model",
        "weights": "model",
        "steps": 1,
        "tokens": 10,
        "rows": 2,
        "metrics": {"loss": 1.0},
    }
    assert "some/model" in (train.out / "recipe.yaml").read_text()


def test_each_stage_feeds_the_next_with_its_own_head_data_and_training(train):
    stages = "stages:\n  - mine\n  - {name: score, data: [{path: b.jsonl}], training: {epochs: 3}}"
    train(recipe=fakes.RECIPE.replace("stage: mine", stages))
    first, second = str(train.out / "stages/1-mine"), str(train.out / "stages/2-score")
    assert [call for call in calls() if "adapter" not in call[0]] == [
        ("load_model", "some/model", "causal_lm"),
        ("build_dataset", "messages", ["a.jsonl"]),
        ("train_stage", first, None, 1.0),
        ("load_model", f"{first}/model", "score"),
        ("build_dataset", "messages", ["b.jsonl"]),
        ("train_stage", second, None, 3.0),
    ]


def test_a_run_of_several_stages_resumes_where_it_was(train):
    recipe = fakes.RECIPE.replace("stage: mine", "stages:\n  - mine\n  - {name: score, fail: stop}")
    with pytest.raises(Stopped, match=r"go on with: tunewright train .*recipe.yaml --resume"):
        train(recipe=recipe)
    checkpoints = train.out / "stages/2-score/checkpoints"
    for step in ("step-9", "step-10"):
        (checkpoints / step).mkdir(parents=True)
        (checkpoints / step / "manifest.json").touch()
    (checkpoints / "step-11").mkdir()  # torn: no manifest
    calls_before = len(calls())
    with pytest.raises(Stopped):
        train(recipe=recipe, resume=True)
    again = calls()[calls_before:]
    assert again[0][1] == str(train.out / "stages/1-mine/model")
    assert again[-1][2] == checkpoints / "step-10"


def test_a_finished_or_interrupted_run_is_not_written_over(train):
    train()
    with pytest.raises(
        RecipeError,
        match=r"holds a run that is completed \(choose another `output`, or --overwrite",
    ):
        train()
    train(overwrite=True)
    with pytest.raises(Stopped):
        train("stage={name: mine, fail: stop}", overwrite=True)
    with pytest.raises(
        RecipeError,
        match=r"holds a run that is interrupted \(go on with: tunewright train .* --resume",
    ):
        train()


def test_a_run_that_failed_before_it_trained_may_begin_again(train, monkeypatch):
    def no_weights(*_, **__):
        raise RunError("no such weights")

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "load", no_weights)
        with pytest.raises(RunError, match="no such weights"):
            train()
    assert json.loads((train.out / "run.json").read_text())["status"] == "failed"
    train("training.epochs=2")
    assert json.loads((train.out / "run.json").read_text())["status"] == "completed"
    with pytest.raises(RunError):
        train("stage.fail=error", overwrite=True)
    with pytest.raises(
        RecipeError, match="holds a run that is failed"
    ):  # it trained: there may be checkpoints
        train()


def test_a_foreign_folder_is_refused_and_kept(train):
    train.out.mkdir(parents=True)
    (train.out / "thesis.tex").write_text("mine")
    with pytest.raises(RecipeError, match="is not empty, and holds no run of ours"):
        train()
    train(overwrite=True)
    assert (train.out / "thesis.tex").read_text() == "mine"


def test_a_resumed_run_must_be_the_same_recipe_and_data(train):
    with pytest.raises(Stopped):
        train("stage.fail=stop")
    problem = r"training.epochs was 1.0 when the run began, is 9.0 now"
    with pytest.raises(RecipeError, match=problem):
        train("stage.fail=stop", "training.epochs=9", resume=True)
    state = json.loads((train.out / "run.json").read_text())
    state["data"]["0"] = "other"
    (train.out / "run.json").write_text(json.dumps(state))
    with pytest.raises(RunError, match="the data is not what it was"):
        train("stage.fail=stop", resume=True)


def test_more_epochs_of_a_finished_run_are_told_another_recipe(train):
    train()
    finished = r"epochs was 1.0 .* is 2.0 now \(the run is finished: another recipe, whose"
    with pytest.raises(RecipeError, match=finished):
        train("training.epochs=2", resume=True)


def test_sigterm_lets_the_stage_save_and_stop(train):
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        train("stage.fail=signal")
    assert stopped.value.exit_code == 130
    assert json.loads((train.out / "run.json").read_text())["status"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_logger_that_raises_is_muted_and_the_others_hear_of_it(train, capsys):
    train("loggers=[raises, mine]")
    assert "logger raises was muted: ValueError: the server is gone" in capsys.readouterr().out
    assert told()[-1] == "RunFinished"


def test_a_logger_that_hangs_is_muted_and_the_run_ends(train, capsys, monkeypatch):
    monkeypatch.setattr(report, "PATIENCE", 0.1)
    train("loggers=[slow, mine]")
    assert "logger slow was muted: was not done" in capsys.readouterr().out
    assert "RunFinished" in told()


def test_a_logger_that_falls_behind_is_muted(install, monkeypatch):
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    monkeypatch.setattr(report, "PATIENCE", 0.1)
    monkeypatch.setattr(report, "CAPACITY", 3)
    from tunewright import registry

    entry = registry.find("logger", "slow")
    plugin = registry.load(entry)
    reporter = report.Reporter(
        None, [registry.PluginCaller(entry, plugin(plugin.Options(), "slow"))]
    )
    for _ in range(5):
        reporter.emit(events.Notice(message="x"))
    assert reporter.close() == {"slow": "is 3 events behind"}


def test_two_runs_do_not_share_a_folder(train):
    train.out.mkdir(parents=True)
    with folder.locked(train.out, 0), pytest.raises(RunError, match="another run is writing here"):
        train()


def test_smoke_keeps_every_plugin_and_changes_model_steps_and_output(tmp_path, install):
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    (tmp_path / "r.yaml").write_text(fakes.RECIPE % "runs/a")
    smoke = run.smoke(check.resolve(tmp_path / "r.yaml"))
    assert (smoke.recipe.model, smoke.recipe.output) == ("tiny", "runs/a-smoke")
    assert smoke.smoke_of == "some/model"
    assert smoke.stages[0].training.max_steps == 3
    assert smoke.recipe.adapter.name == "mine"


def test_the_family_is_found_from_the_checkpoint(tmp_path, install):
    install("tw-mine", fakes.POINTS | {"model_type": {"mine_type": "mine"}}, fakes.SOURCE)
    (tmp_path / "config.json").write_text('{"model_type": "mine_type"}')
    (tmp_path / "r.yaml").write_text(
        (fakes.RECIPE % "a").replace("some/model", str(tmp_path)).replace("family: mine\n", "")
    )
    recipe = check.resolve(tmp_path / "r.yaml").recipe
    assert detection.detect_family(recipe.model) == "mine"
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(RecipeError, match="model_type 'unheard_of' belongs to no installed family"):
        detection.detect_family(recipe.model)
    (tmp_path / "config.json").write_text('{"model_type": "mine_typ2"}')
    with pytest.raises(RecipeError) as near:
        detection.detect_family(recipe.model)
    assert near.value.hint == "did you mean 'mine_type'?; name one with `family:`"
