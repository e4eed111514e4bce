"""The best evaluation and early stopping where a process dies, and where there are two."""

import json
import signal
from pathlib import Path

import evaluation_worker
import pytest
import torch
from evaluation_setup import same, trained

import forked
from tunewright_hf.checkpoints.folder import latest_checkpoint

pytestmark = pytest.mark.slow


def in_processes(number: int, folder: Path, settings: dict, *checkpoint: Path) -> forked.Done:
    arguments = [str(folder), json.dumps(settings), *map(str, checkpoint)]
    return forked.run(Path(evaluation_worker.__file__), *arguments, processes=number)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    """Killed at an evaluation, after those of its best and of others in vain."""
    whole = evaluation_worker.trained(tmp_path / "whole", {})
    steps, metrics, logged, said = whole
    assert (steps, metrics["best_step"]) == (5, 1)
    assert len(said) == 2 and said[0].startswith("stopped at step 5")
    dead = in_processes(1, tmp_path / "parts", {"killed_at": 4})
    assert dead.codes == [-signal.SIGKILL], dead.error[-3000:]
    checkpoint = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    assert checkpoint.name == "step-3"
    assert evaluation_worker.trained(tmp_path / "parts", {}, checkpoint) == [
        steps,
        metrics,
        logged[3:],
        said,
    ]
    assert same(trained(tmp_path / "parts"), trained(tmp_path / "whole"))


def test_two_processes_decide_as_one(tmp_path):
    """The best evaluation, early stopping and the written files; also after an interruption."""
    settings = {"lora": True, "generate": 6}

    def two(*checkpoint: Path):
        done = in_processes(
            2, tmp_path / "two", {**settings, "per_device_train_batch_size": 2}, *checkpoint
        )
        assert done.codes == [0, 0], done.error[-3000:]
        (line,) = [line for line in done.output.splitlines() if line.startswith("RESULT ")]
        return json.loads(line.removeprefix("RESULT "))

    one, found = evaluation_worker.trained(tmp_path / "one", settings), two()
    assert found[0] == one[0] == 5
    assert found[1] == pytest.approx(one[1], rel=1e-5) and found[1]["best_step"] == 1
    assert {"it_exact_match", "it_rouge-1", "it_rouge-2", "it_rouge-l", "it_bleu-4"} < found[
        1
    ].keys()
    weights = trained(tmp_path / "two")
    for name, each in trained(tmp_path / "one").items():
        torch.testing.assert_close(weights[name], each, rtol=1e-4, atol=1e-5)
    (tmp_path / "two" / "checkpoints" / "step-4" / "manifest.json").unlink()
    again = two(tmp_path / "two" / "checkpoints" / "step-3")
    assert again == [*found[:2], found[2][3:], found[3]]
