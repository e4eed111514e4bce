"""A run folder has a mirror on an object store, from which an empty folder continues."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest

from e2e.test_elastic import RECIPE
from tunewright.check import resolve
from tunewright.errors import RecipeError, RunError, Stopped, TunewrightError
from tunewright.events import Logged
from tunewright.run import train
from tunewright_hf.checkpoints import being_copied, mirror
from tunewright_hf.checkpoints.folder import rotate, write_checkpoint

STORE = "memory://bucket/run"
SMALL = ["training.batching=random", "training.per_device_train_batch_size=2"]
pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("save_steps: 3", "save_steps: 1"))
    return file


@pytest.fixture
def store() -> Any:
    files = fsspec.filesystem("memory")
    files.rm("/bucket", recursive=True) if files.exists("/bucket") else None
    yield files
    files.rm("/bucket", recursive=True) if files.exists("/bucket") else None


def go(recipe: Path, folder: str, *more: str, **options: Any) -> Any:
    output = f"output={{path: {recipe.with_name(folder)}, mirror: '{STORE}'}}"
    return train(recipe, overrides=[*SMALL, output, *more], **options)


def stopped_at(step: int) -> Any:
    """Listener that asks a run to stop after this step, as a signal does."""
    import os
    import signal

    def hear(event: Any) -> None:
        if isinstance(event, Logged) and event.step == step - 1:  # the step in progress
            os.kill(os.getpid(), signal.SIGTERM)

    return hear


def test_another_machine_continues(recipe: Path, store: Any) -> None:
    whole = go(recipe, "whole", overwrite=True)
    store.rm("/bucket", recursive=True)
    with pytest.raises(Stopped):
        go(recipe, "first", on_event=stopped_at(4))
    shutil.rmtree(recipe.with_name("first"))
    again = go(recipe, "second", resume=True)
    names = ("model.safetensors", "config.json")
    assert [(again.path / name).read_bytes() for name in names] == [
        (whole.path / name).read_bytes() for name in names
    ]
    steps = recipe.with_name("second") / "metrics.jsonl"
    assert [json.loads(line)["step"] for line in steps.read_text().splitlines()] == [*range(1, 7)]
    # the mirror has what the folder has: three checkpoints, the result, the files at the top
    there = {name.removeprefix("/bucket/run/") for name in store.find("/bucket/run")}
    here = {
        path.relative_to(recipe.with_name("second")).as_posix()
        for path in recipe.with_name("second").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert there - here == {"model/mirror.json"} and not here - there
    state = json.loads(store.cat_file("/bucket/run/run.json"))
    assert state["status"] == "completed"


def test_a_damaged_checkpoint_is_left_out(recipe: Path, store: Any) -> None:
    with pytest.raises(Stopped):
        go(recipe, "first", on_event=stopped_at(4))
    store.pipe_file("/bucket/run/checkpoints/step-4/weights.safetensors", b"x")
    heard: list[Any] = []
    go(recipe, "second", resume=True, on_event=heard.append)
    said = [event.message for event in heard if hasattr(event, "message")]
    assert any("checkpoints/step-4 is left out" in each for each in said)
    assert next(event.step for event in heard if isinstance(event, Logged)) == 4


def test_a_half_copied_checkpoint_does_not_count(recipe: Path, store: Any) -> None:
    with pytest.raises(Stopped):
        go(recipe, "first", on_event=stopped_at(4))
    store.rm("/bucket/run/checkpoints/step-4/manifest.json")
    heard: list[Any] = []
    go(recipe, "second", resume=True, on_event=heard.append)
    assert next(event.step for event in heard if isinstance(event, Logged)) == 4


def test_another_run_is_not_replaced(recipe: Path, store: Any) -> None:
    go(recipe, "first")
    with pytest.raises(RecipeError, match=r"output.mirror: holds another run \(--resume"):
        go(recipe, "second")
    store.pipe_file("/bucket/run/mine.txt", b"kept")
    go(recipe, "second", "training.max_steps=1", overwrite=True)
    left = {name.removeprefix("/bucket/run/") for name in store.find("/bucket/run")}
    assert "mine.txt" in left and "checkpoints/step-6/manifest.json" not in left


def test_a_path_that_leads_out_is_refused(recipe: Path, store: Any) -> None:
    with pytest.raises(Stopped):
        go(recipe, "first", on_event=stopped_at(2))
    file = "/bucket/run/checkpoints/step-2/manifest.json"
    manifest = json.loads(store.cat_file(file))
    manifest["files"]["../../../../out"] = {"size": 1, "sha256": "0"}
    store.pipe_file(file, json.dumps(manifest).encode())
    with pytest.raises(RunError, match="leads out of its folder"):
        go(recipe, "second", resume=True)


def test_a_store_that_fails_is_reported(
    recipe: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_PAUSE", 0)
    tries = []

    def put_file(self: Any, local: str, remote: str, **_: Any) -> None:
        tries.append(remote)
        raise ConnectionError("no route")

    monkeypatch.setattr(type(store), "put_file", put_file)
    heard: list[Any] = []
    go(recipe, "first", "training.max_steps=1", on_event=heard.append)
    said = [event.message for event in heard if getattr(event, "level", "") == "warning"]
    assert any("not copied to memory://bucket/run: ConnectionError: no route" in s for s in said)
    assert not [name for name in store.find("/bucket/run") if name.endswith("manifest.json")]
    assert tries.count(tries[0]) == 4


def test_rotation_waits_for_the_copy(tmp_path: Path) -> None:
    for step in (1, 2):
        write_checkpoint(
            tmp_path / f"step-{step}", lambda path: (path / "x").touch() or None, facts={}
        )
    first = tmp_path / "step-1"
    being_copied.add(first)
    rotating = threading.Thread(target=rotate, args=(tmp_path, 1))
    rotating.start()
    rotating.join(0.3)
    assert rotating.is_alive() and first.exists()
    being_copied.remove(first)
    rotating.join(60)
    assert not first.exists()


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("s3://bucket/run", "'s3://bucket/run' is an address, and a run folder is local"),
        ({"path": "x", "mirror": "y"}, "output.mirror: found 'y', expected an address"),
        ({"path": "x", "to": "y"}, "output.to: unknown key (it has path and mirror)"),
        ({"mirror": STORE}, "output: is missing"),
    ],
)
def test_outputs_that_are_none(recipe: Path, output: Any, problem: str) -> None:
    with pytest.raises(TunewrightError) as found:
        resolve({**resolve(recipe).recipe.as_mapping(), "output": output})
    assert problem in str(found.value)


def test_the_recipe_keeps_it(recipe: Path) -> None:
    written = resolve(recipe, [f"output={{path: x, mirror: '{STORE}'}}"]).recipe.as_mapping()
    assert written["output"] == {"path": "x", "mirror": STORE} and "mirror" not in written
    assert resolve(written).recipe.mirror == STORE
