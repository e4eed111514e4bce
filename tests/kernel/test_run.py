"""A whole run with plugins that only write down what they were asked."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest

import kernel_fakes as fakes
from tunewright import check, cli, detection, events, folder, report, run
from tunewright.errors import RecipeError, RunError, Stopped


@pytest.fixture
def train(tmp_path, install):
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    out = tmp_path / "runs" / "a"

    def _train(*overrides: str, recipe: str = fakes.RECIPE, **how):
        path = tmp_path / "r.yaml"
        path.write_text(recipe % out)
        return run.train(check.resolve(path, list(overrides)), **how)

    _train.out = out
    return _train


def calls() -> list:
    return [call for call in sys.modules["tw_mine"].CALLS if isinstance(call, tuple)]


def told() -> list[str]:
    return [call["event"] for call in sys.modules["tw_mine"].CALLS if isinstance(call, dict)]


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


def test_options_that_suit_the_checkpoint_are_used_and_stored(train):
    train()
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"] == {"name": "mine", "system": "listed", "a": "b"}
    assert "template" not in state["recipe"]


@pytest.mark.parametrize("named", ["template: mine", "template: {name: mine, system: mine}"])
def test_a_recipe_that_names_that_template_gets_them_too(train, named):
    train("template.system=mine", recipe=f"{fakes.RECIPE}{named}\n")
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"] == {"name": "mine", "system": "mine", "a": "b"}


def test_another_template_gets_none_of_them(train):
    train(recipe=fakes.RECIPE + "template: other\n")
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"] == {"name": "other"}


def test_what_was_trained_with_is_used_whatever_is_listed_later(train, monkeypatch):
    train()
    monkeypatch.setattr(sys.modules["tw_mine"], "LISTED", "of a later version")
    opened = run.open_run(train.out)
    opened.load_policy()
    assert opened.plugin("template").options.system == "listed"
    train(overwrite=True)
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"]["system"] == "of a later version"


def test_a_resumed_run_keeps_its_template(train, monkeypatch):
    with pytest.raises(Stopped):
        train("stage.fail=stop")
    monkeypatch.setattr(sys.modules["tw_mine"], "LISTED", "of a later version")
    with pytest.raises(Stopped):
        train("stage.fail=stop", resume=True)
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"]["system"] == "listed"


@pytest.mark.parametrize("written", [3, {}, {"name": ""}, [], {"system": "a"}])
def test_a_damaged_template_in_run_json_is_one_line(train, written):
    train()
    file = train.out / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"template": written}))
    with pytest.raises(RunError, match=r"run.json: describes no template"):
        run.open_run(train.out)


def test_open_run_gives_the_trained_model(train):
    train()
    opened = run.open_run(train.out)
    opened.load_policy()
    assert calls()[-1] == ("load_model", str(train.out / "model"), "causal_lm")
    with pytest.raises(RecipeError, match="is no run folder"):
        run.open_run(Path("/nowhere"))


def test_a_model_that_gives_numbers_is_none_to_talk_to(train):
    train("stage=score")
    with pytest.raises(RecipeError, match="does not generate text"):
        run.open_run(train.out).load_policy()


def test_a_reward_model_is_loaded_by_its_head(train):
    train("stage=score")
    opened = run.open_run(train.out)
    assert opened.policy_head == "score"
    opened.load_policy("score")
    assert calls()[-1] == ("load_model", str(train.out / "model"), "score")


def test_a_model_without_scores_has_none_to_give(train):
    train()
    with pytest.raises(RecipeError, match="is no reward model"):
        run.open_run(train.out).load_policy("score")


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
