"""Interrupted and resumed is the same as uninterrupted, bit for bit, with a reference that is
scored once."""

from pathlib import Path

import pytest
import torch
from answers_setup import run_stage
from test_pairs_training import CASES, adapted
from test_resume import assert_same_state, no_pickle
from training_setup import a_run, logs_of, stop_after

from tunewright.check import resolve
from tunewright.errors import Stopped
from tunewright.run import train
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.training import reference

__all__ = ["no_pickle"]  # a fixture: every way to read or write a pickle raises
LENGTH = {
    "max_steps": 8,
    "logging_steps": 3,
    "save_total_limit": 100,
    "gradient_accumulation_steps": 2,
}


def interrupted(folder: Path, made, stage, at: int, **settings):
    """Train until step `at`, stop there as after SIGTERM: the run, and the checkpoint."""
    run = a_run(folder)
    with pytest.raises(Stopped):
        run_stage(folder, made, stage, stop=stop_after(at), run=run, **settings)
    return run, latest_checkpoint(folder / "checkpoints")


BOTH = [
    (name, how) for name in ("dpo", "reward", "kto", "orpo", "simpo") for how in ("full", "lora")
]


@pytest.mark.parametrize(("name", "how"), [*BOTH, ("bco", "full")])
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, name, how):
    case = CASES[name]
    settings = {"data": case.rows(13), "evals": {"it": case.rows(3, seed=4)}, **LENGTH}
    whole, _ = run_stage(
        tmp_path / "whole", adapted(case, how, 0.2), case.stage, save_steps=8, **settings
    )
    first, checkpoint = interrupted(
        tmp_path / "parts", adapted(case, how, 0.2), case.stage, at=6, **settings
    )
    if "reference" in type(case.stage.options).model_fields:
        # nothing is scored again
        monkeypatch.setattr(reference.ReferenceTrainer, "_score_all", None)
    second, result = run_stage(
        tmp_path / "parts",
        adapted(case, how, 0.2),
        case.stage,
        checkpoint=checkpoint,
        save_steps=8,
        **settings,
    )
    assert result.steps == 8
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-8" for name in ("whole", "parts")))


def test_what_was_counted_since_the_last_report_goes_on(tmp_path):
    """A checkpoint between two reports: the averages of the next one are over all its steps."""
    case = CASES["dpo"]
    settings = {"max_steps": 6, "logging_steps": 5, "data": case.rows(13)}
    whole, _ = run_stage(tmp_path, adapted(case, "full"), case.stage, save_steps=3, **settings)
    (tmp_path / "checkpoints" / "step-6" / "manifest.json").unlink()
    checkpoint = tmp_path / "checkpoints" / "step-3"
    run, _ = run_stage(
        tmp_path, adapted(case, "full"), case.stage, checkpoint=checkpoint, **settings
    )
    (fifth, _), (_, expected, _) = logs_of(run), logs_of(whole)
    averaged = [name for name in fifth if "/" in name]
    assert [fifth[name] for name in averaged] == [expected[name] for name in averaged]


def test_scores_of_other_rows_are_made_anew(tmp_path):
    case = CASES["dpo"]
    run_stage(tmp_path, adapted(case, "full"), case.stage, case.rows(8))
    before = reference.load_state(tmp_path / "checkpoints" / "reference", "reference")["scores"][
        "train"
    ]
    run, _ = run_stage(tmp_path, adapted(case, "full"), case.stage, case.rows(9))
    after = reference.load_state(tmp_path / "checkpoints" / "reference", "reference")["scores"][
        "train"
    ]
    assert (before.shape, after.shape) == ((8, 2), (9, 2))
    assert logs_of(run)[0]["loss"] == pytest.approx(torch.tensor(2.0).log().item(), rel=1e-5)


def test_a_run_that_is_begun_anew_scores_anew(tmp_path):
    """With another model on the same rows: what the first one said of them is nobody's
    reference."""
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "Who?", "chosen": "A wren.", "rejected": "No."}\n' * 2, "utf-8"
    )
    for size in (16, 32):
        recipe = resolve(
            {
                "model": "tiny",
                "family": {
                    "name": "llama",
                    "device": "cpu",
                    "tiny_hidden_size": size,
                    "tiny_layers": 1,
                },
                "stage": "dpo",
                "data": [{"path": str(tmp_path / "rows.jsonl")}],
                "loggers": [],
                "training": {"max_steps": 1},
                "output": str(tmp_path / "run"),
            }
        )
        result = train(recipe, overwrite=True)
        assert result.metrics["loss"] == pytest.approx(torch.tensor(2.0).log().item(), rel=1e-5)


def test_only_rows_that_are_trained_on_are_scored(tmp_path):
    case = CASES["dpo"]
    run_stage(
        tmp_path, adapted(case, "full"), case.stage, case.rows(40), max_steps=2, batching="random"
    )
    scores = reference.load_state(tmp_path / "checkpoints" / "reference", "reference")["scores"][
        "train"
    ]
    assert (~scores.isnan()).all(1).sum() == 8
