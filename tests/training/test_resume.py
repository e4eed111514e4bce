"""Interrupted and resumed is the same as uninterrupted, bit for bit; nothing in a checkpoint is a
pickle."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from training_setup import a_run, loaded, logs_of, lora, model, rows, run_training, stop_after

from tunewright import RunError
from tunewright.errors import Stopped
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.training import checkpointing

DROPOUT = {"dropout": 0.2}
MODELS = {"full": lambda: loaded(model(**DROPOUT)), "lora": lambda: lora(model(**DROPOUT))}
MODES = {
    "random": {"batching": "random"},
    "length_grouped": {"batching": "length_grouped"},
    "token_budget": {"batching": "token_budget", "tokens_per_batch": 50},
    "packing": {"packing": True, "max_length": 40},
    "accumulated": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2},
}
LENGTH = {"max_steps": 12, "logging_steps": 2, "save_total_limit": 100}


@pytest.fixture(autouse=True)
def no_pickle(monkeypatch):
    """Every way to read or write a pickle raises."""

    def forbidden(*_, **__):
        raise AssertionError("a pickle")

    for name in ("load", "save"):
        monkeypatch.setattr(torch, name, forbidden)
    for name in ("load", "loads", "dump", "Unpickler", "Pickler"):
        monkeypatch.setattr(f"pickle.{name}", forbidden)


def interrupted(folder: Path, made, at: int, **settings):
    """Train until step `at`, stop there as after SIGTERM: the run, and the checkpoint."""
    run = a_run(folder)
    with pytest.raises(Stopped, match=f"stopped and saved at step {at} of 12"):
        run_training(folder, made, stop=stop_after(at), run=run, **settings)
    return run, latest_checkpoint(folder / "checkpoints")


def assert_same_state(one: Path, other: Path):
    for name in ("weights", "optimizer", "rng-0", "others"):
        left, right = load_state(one, name), load_state(other, name)
        assert repr(strip(left)) == repr(strip(right)), name
        assert tensors(left).keys() == tensors(right).keys()
        for place, tensor in tensors(left).items():
            assert torch.equal(tensor, tensors(right)[place]), (name, place)


def tensors(state, place=""):
    if isinstance(state, torch.Tensor):
        return {place: state}
    items = ()
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
    return {
        key: each
        for name, value in items
        for key, each in tensors(value, f"{place}/{name}").items()
    }


def strip(state):
    if isinstance(state, torch.Tensor):
        return (state.dtype, state.shape)
    if isinstance(state, dict):
        return {key: strip(value) for key, value in state.items()}
    return type(state)(map(strip, state)) if isinstance(state, list | tuple) else state


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("kind", MODELS)
def test_resumed_equals_uninterrupted(tmp_path, kind, mode):
    settings = {"data": rows(30), **LENGTH, **mode}
    whole, _ = run_training(tmp_path / "whole", MODELS[kind](), save_steps=6, **settings)
    first, checkpoint = interrupted(tmp_path / "parts", MODELS[kind](), at=6, **settings)
    second, result = run_training(
        tmp_path / "parts", MODELS[kind](), checkpoint=checkpoint, save_steps=6, **settings
    )
    assert result.steps == 12
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-12" for name in ("whole", "parts")))
    started = second.events[0]
    assert (started.first_step, started.total_steps) == (6, 12)


def test_resumed_from_the_last_step_only_saves_the_result(tmp_path):
    _, result = run_training(tmp_path, loaded(model()), save_steps=6, **LENGTH)
    shutil.rmtree(tmp_path / "model")
    last = tmp_path / "checkpoints" / "step-12"
    _, again = run_training(tmp_path, loaded(model()), checkpoint=last, **LENGTH)
    assert again == result
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_a_stop_at_the_last_step_is_no_stop(tmp_path):
    _, result = run_training(
        tmp_path, loaded(model()), stop=lambda run: len(run.events) >= 2, max_steps=1
    )
    assert result.steps == 1


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    run_training(tmp_path, loaded(model()), max_steps=6, save_steps=1, save_total_limit=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-5",
        "step-6",
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": rows(25)}, "rows was 24, is 25"),
        ({"per_device_train_batch_size": 2}, "per_device_train_batch_size was 4, is 2"),
        ({"packing": True}, "packing was False, is True"),
        ({"seed": 1}, "seed was 42, is 1"),
    ],
)
def test_another_order_of_rows_stops_the_resumption(tmp_path, changed, message):
    _, checkpoint = interrupted(tmp_path, loaded(model()), at=6, **LENGTH)
    with pytest.raises(RunError, match=message):
        run_training(tmp_path, loaded(model()), checkpoint=checkpoint, **{**LENGTH, **changed})


def test_another_model_stops_the_resumption(tmp_path):
    _, checkpoint = interrupted(tmp_path, loaded(model()), at=6, **LENGTH)
    with pytest.raises(RunError, match=r"is of another model: .* is None there"):
        run_training(tmp_path, lora(model()), checkpoint=checkpoint, **LENGTH)


def test_a_full_disk_while_training_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    own = checkpointing.save_state

    def full(state, folder, name):
        if folder.name == ".step-8.new" and name == "optimizer":
            raise OSError(28, "No space left on device")
        own(state, folder, name)

    monkeypatch.setattr(checkpointing, "save_state", full)
    with pytest.raises(RunError, match="step-8: cannot be written: No space left on device"):
        run_training(tmp_path, loaded(model()), save_steps=4, **LENGTH)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-4"]
    last = tmp_path / "checkpoints" / "step-4"
    _, result = run_training(tmp_path, loaded(model()), checkpoint=last, **LENGTH)
    assert result.steps == 12


def test_checkpoints_hold_nothing_but_json_and_safetensors(tmp_path):
    _, checkpoint = interrupted(tmp_path, lora(model()), at=6, **LENGTH)
    assert {path.suffix for path in checkpoint.iterdir()} == {".json", ".safetensors"}
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (6, 1)
    assert {path.name for path in checkpoint.iterdir()} == {*manifest["files"], "manifest.json"}


def test_no_trainer_of_other_libraries_and_no_pickle_in_the_sources():
    """TRL and transformers' Trainer serve in tests only, and checkpoints are ours. Pickles are read
    in one module, which runs in a process of its own."""
    forbidden = ("import trl", "from trl", "import Trainer", "TrainingArguments", "pickle.load")
    forbidden += ("torch.load(", "torch.save(", "transformers import Trainer")
    sources = list(Path(__file__).parents[2].glob("plugins/**/src/**/*.py"))
    assert len(sources) > 100
    found = [
        f"{path.name}: {each}"
        for path in sources
        if path.name != "pickle_worker.py"
        for each in forbidden
        if each in path.read_text("utf-8")
    ]
    assert not found
