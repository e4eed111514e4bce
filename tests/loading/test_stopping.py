"""A stop while a checkpoint is loaded: what comes after the part in progress is not done."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from fake_hub import fake_hub
from loading_setup import load

from tunewright.errors import Stopped
from tunewright.stopper import Stopper
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models import checks, loading, tokenizer_loading


def stopping(look: int) -> FakeRun:
    """A run that is asked to stop from this look on."""
    left = itertools.count(look - 1, -1)
    return FakeRun(stop_requested=lambda: next(left) <= 0)


@pytest.mark.parametrize(
    ("look", "done"), [(1, []), (2, ["tokenizer"]), (3, ["tokenizer", "weights"])]
)
def test_the_next_part_is_not_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, look: int, done: list[str]
) -> None:
    found = []

    def noted(name: str, function: Any) -> Any:
        return lambda *given, **named: found.append(name) or function(*given, **named)

    read = noted("tokenizer", tokenizer_loading.load)
    monkeypatch.setattr(tokenizer_loading, "load", read)
    monkeypatch.setattr(loading, "load_weights", noted("weights", loading.load_weights))
    with pytest.raises(Stopped):
        load(stopping(look), str(checkpoint))
    assert found == done


def test_weights_are_looked_at_tensor_by_tensor(run: FakeRun) -> None:
    model = load(run).model
    looks = itertools.count(1)
    asked = FakeRun(stop_requested=lambda: next(looks) == 3)
    with pytest.raises(Stopped):
        checks.check_finite(model, "here", asked.check_stop)
    assert len(list(model.parameters())) > 3 and next(looks) == 4


def test_a_rank_whose_group_is_open_does_not_stop_alone(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a reference that is loaded in training: the others would wait for it."""
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    assert isinstance(load(stopping(1), str(checkpoint)).model, transformers.PreTrainedModel)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_call_in_progress(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    reached = []

    def read(*given: Any) -> None:
        signal.raise_signal(number)
        reached.append("the next shard")

    monkeypatch.setattr(loading, "load_weights", read)
    before = signal.getsignal(number)
    with Stopper() as stopper, pytest.raises(Stopped):
        load(FakeRun(stop_requested=stopper), str(checkpoint))
    assert not reached and signal.getsignal(number) is before


def test_a_signal_waits_where_the_group_is_open(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_weights = loading.load_weights

    def read(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return load_weights(*given)

    monkeypatch.setattr(loading, "load_weights", read)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    with Stopper() as stopper:
        loaded = load(FakeRun(stop_requested=stopper), str(checkpoint))
        assert stopper() and isinstance(loaded.model, transformers.PreTrainedModel)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_download_ends_within_a_file(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "Name a bird.", "output": "A wren."}\n')
    recipe = {
        "model": "a/b",
        "family": {"name": "qwen", "device": "cpu"},
        "data": [{"path": "a.jsonl"}],
        "stage": "sft",
        "output": "out",
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    files = dict.fromkeys(("config.json", "tokenizer.json", "model.safetensors"), b"{}")
    with fake_hub(files) as hub:
        hub.endless = "model.safetensors"
        process = subprocess.Popen(
            [sys.executable, "-m", "tunewright", "train", "recipe.yaml"],
            cwd=tmp_path,
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": "home", "HF_HUB_OFFLINE": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert hub.flows.wait(120)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    told, _, rest = said.partition("\nerror: ")  # the first follows a progress bar
    assert told.count("stopping: ") == 1
    assert rest.startswith("stopped as asked (go on with: ") and rest.count("\n") == 1
