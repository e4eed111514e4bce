"""The Python API, as a notebook or a service uses it."""

import json
import subprocess
import sys

import pytest

import kernel_fakes as fakes
import tunewright

SCRIPT = """
import sys
import tunewright

heavy = {"torch", "transformers", "pydantic", "yaml", "typer", "rich", "pluggy"} & set(sys.modules)
# pluggy: hookimpl is a mark of it
print("imported:", sorted(heavy - {"pluggy"}))
recipe = RECIPE
resolved = tunewright.resolve(recipe)
print("resolved:", resolved.recipe.training.epochs, resolved.plugin("adapter").__name__)
result = tunewright.train(recipe, overrides=["training.epochs=2"],
                          on_event=lambda event: print("event:", type(event).__name__))
print("result:", result.steps, result.metrics)
run = tunewright.open_run(recipe["output"])
print("opened:", run.load_policy().template)
try:
    tunewright.train(recipe | {"output": ""})
except tunewright.RecipeError as error:
    print("error:", error)
try:
    tunewright.train(recipe)
except tunewright.TunewrightError as error:
    print("error:", error)
tunewright.train(resolved, overwrite=True, on_event=print)
print("torch:", "torch" in sys.modules)
"""


def test_a_script_trains_from_a_mapping(tmp_path, install):
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    recipe = {
        **dict.fromkeys(("family", "adapter", "dataset", "optimizer", "engine", "stage"), "mine"),
        "model": "some/model",
        "loggers": [],
        "data": [{"path": "a.jsonl"}],
        "output": str(tmp_path / "out"),
    }
    (tmp_path / "script.py").write_text(SCRIPT.replace("RECIPE", json.dumps(recipe)))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["imported: []", "resolved: 1.0 Adapter"]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert names[0] == "RunStarted" and names[-1] == "RunFinished" and "Logged" in names
    assert "result: 1 {'loss': 1.0}" in lines
    assert "opened: mine" in lines
    assert "error: recipe: output: String should have at least 1 character" in lines
    assert any("holds a run that is completed" in line for line in lines)
    assert any(line.startswith("RunStarted(") for line in lines)
    assert lines[-1] == "torch: False"
    state = json.loads((tmp_path / "out/run.json").read_text())
    assert state["recipe"]["data_root"] == str(tmp_path)
    assert state["recipe"]["training"]["epochs"] == 1.0  # of the last run


def test_a_listener_that_raises_ends_the_run_as_failed(tmp_path, install):
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    (tmp_path / "r.yaml").write_text(fakes.RECIPE % (tmp_path / "out"))

    def listen(event):
        if type(event).__name__ == "Logged":
            raise ValueError("the notebook is broken")

    with pytest.raises(ValueError, match="the notebook is broken"):
        tunewright.train(tmp_path / "r.yaml", on_event=listen)
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "failed"


def test_every_name_that_is_promised_is_there():
    for name in tunewright.__all__:
        assert getattr(tunewright, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tunewright.nothing  # noqa: B018


def test_a_run_in_a_thread_takes_no_signals(tmp_path, install):
    import signal
    import threading

    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    (tmp_path / "r.yaml").write_text(fakes.RECIPE % (tmp_path / "out"))
    before = signal.getsignal(signal.SIGTERM)
    results = []
    thread = threading.Thread(
        target=lambda: results.append(tunewright.train(tmp_path / "r.yaml")), name="service"
    )
    thread.start()
    thread.join(60)
    assert results[0].steps == 1
    assert signal.getsignal(signal.SIGTERM) is before
