"""What each tracker wrote, without a server, is what the run said."""

import json
from pathlib import Path

import pytest

from envs.trackers import readers
from envs.trackers.stream import (
    LIBRARIES,
    NOTES,
    RECIPE,
    TAGS,
    VERSIONS,
    needs_trackers,
    run_twice,
)

pytestmark = [needs_trackers, pytest.mark.slow]
KEYS = {name: f"{name}0secret0key0".ljust(40, "f") for name in ("WANDB", "SWANLAB", "COMET")}
STATUS = {  # of a completed run, in each tracker's words
    "wandb": "0",
    "mlflow": "FINISHED",
    "swanlab": "1",
    "trackio": "",
    "comet": "completed",
    "aim": "completed",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each tracker's run, made when it is asked for the first time."""
    return {}


@pytest.fixture(params=LIBRARIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def run(name: str, runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if name not in runs:
        folder = tmp_path_factory.mktemp(name) / f"run-{name}"
        with pytest.MonkeyPatch.context() as patch:
            for library, key in KEYS.items():
                patch.setenv(f"{library}_API_KEY", key)
            run_twice(name, folder)
        runs[name] = folder
    return runs[name]


def test_everything_is_read_back(name: str, run: Path) -> None:
    found = getattr(readers, name)(run)
    assert found.id == json.loads((run / f"logs/{name}.json").read_text())["id"]
    assert (found.name, found.project) == (f"run-{name}", "birds")
    assert (sorted(found.tags), found.notes) == (sorted(TAGS), NOTES)
    assert found.status == STATUS[name]
    losses = {1: 3.0, 2: 1.5, 3: 1.0, 4: 0.75}  # step 3 was sent twice
    assert found.metrics == {
        "train/loss": pytest.approx(losses),
        "train/learning_rate": pytest.approx(dict.fromkeys(losses, 1e-4)),
        "eval/held out/loss": {4: 0.5},
    }
    assert found.samples.keys() == {1, 2, 3, 4}
    for step, text in found.samples.items():
        assert "Name a bird." in text
        assert f"wren {step}" in text
        assert str(step / 4) in text


def test_recipe_and_versions_are_read_back(name: str, run: Path) -> None:
    found = getattr(readers, name)(run)
    assert found.config["versions"] == VERSIONS
    if name == "comet":  # it keeps lists as text
        found.config["recipe"] |= {key: RECIPE[key] for key in ("stages", "loggers")}
        assert found.config["recipe"].pop("training") == RECIPE["training"]
        found.config["recipe"]["training"] = RECIPE["training"]
    assert found.config["recipe"] == RECIPE


def test_the_result_is_an_artifact(name: str, run: Path) -> None:
    artifact = getattr(readers, name)(run).artifact
    if name == "trackio":
        assert "adapter.txt" in artifact["manifest"]
    else:
        assert artifact == {"adapter.txt": str(len("weights")) if name == "wandb" else "weights"}


def test_no_key_is_in_the_run_folder(run: Path) -> None:
    files = [file for file in run.rglob("*") if file.is_file()]
    assert files
    leaks = [f for f in files for key in KEYS.values() if key.encode() in f.read_bytes()]
    assert leaks == []
