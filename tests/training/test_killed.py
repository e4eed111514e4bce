"""Every stage, killed by SIGKILL in the middle and resumed, ends with the bits of an uninterrupted
training."""

import os
from pathlib import Path

import every_stage
import pytest
from every_stage import KILLED_AFTER, MAKE, STEPS, WAYS
from prompts_setup import own_rewards
from test_resume import assert_same_state, no_pickle
from training_setup import logs_of

import forked
from tunewright_hf.checkpoints.folder import checkpoints, latest_checkpoint
from tunewright_hf.training import reference

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has neither fork nor SIGKILL"),
    pytest.mark.usefixtures("own_rewards"),
]


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """Folders NAME-HOW of trainings that were killed."""
    folder = tmp_path_factory.mktemp("killed")
    done = forked.run(Path(every_stage.__file__), str(folder))
    assert done.codes == [0], done.error[-3000:]
    return folder


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", MAKE)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, killed, monkeypatch, name, how):
    whole, _ = every_stage.train(name, how, tmp_path)
    folder = killed / f"{name}-{how}"
    saved = [path.name for path in checkpoints(folder / "checkpoints")]
    assert saved == ["step-2", "step-4"]
    assert not (folder / "model").exists()
    monkeypatch.setattr(reference.ReferenceTrainer, "_score_all", None)  # nothing is scored again
    checkpoint = latest_checkpoint(folder / "checkpoints")
    resumed, result = every_stage.train(name, how, folder, checkpoint=checkpoint)
    assert result.steps == STEPS
    assert resumed.events[0].first_step == KILLED_AFTER - 1
    assert logs_of(resumed) == logs_of(whole)[KILLED_AFTER - 1 :]
    assert_same_state(*(each / "checkpoints" / f"step-{STEPS}" for each in (tmp_path, folder)))
    assert files(tmp_path / "model") == files(folder / "model")
    assert (folder / "value_head.safetensors").exists() == (name == "ppo")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
