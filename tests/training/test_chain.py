"""A chain of stages, stopped and killed on its way: it goes on where it was, to the same result."""

import json
import signal
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from tunewright import check
from tunewright.errors import Stopped
from tunewright.run import Run, open_run, train
from tunewright_hf.training.loop import TrainingLoop

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
PRETRAIN, SFT, DPO = 1, 2, 3
REWARD, PPO = 2, 3
STEPS = 4


class Killed(Exception):
    """In place of SIGKILL, which would take the tests along: nobody catches it, and nothing is
    saved."""


def run_chain(output, adapter, example="sft-dpo", more=(), **how):
    overrides = [
        f"output={output}",
        f"adapter={adapter}",
        "family.tiny_hidden_size=16",
        "family.tiny_layers=1",
        "loggers=[jsonl]",
        f"training.max_steps={STEPS}",
        "training.logging_steps=1",
        "training.save_steps=2",
        "training.precision=fp32",
        "training.per_device_train_batch_size=4",
        *more,
    ]
    return train(check.resolve(EXAMPLES / f"{example}.yaml", overrides), limit=16, **how)


@contextmanager
def trained_steps(killed_after=None, stopped_in=None, killed_before=None):
    """The steps (stage, step) that are trained meanwhile, and the end of it: killed or asked to
    stop after one of them, or killed before a stage."""
    end, load, steps = TrainingLoop._log_evaluate_save, Run.load, []

    def log_evaluate_save(self):
        steps.append(place := (self.request.number, self.step))
        if place == stopped_in:
            signal.raise_signal(signal.SIGTERM)
        end(self)
        if place == killed_after:
            raise Killed

    def begins(self, **how):
        if killed_before and self.plugin("stage").name == killed_before:
            raise Killed
        return load(self, **how)

    with (
        mock.patch.object(TrainingLoop, "_log_evaluate_save", log_evaluate_save),
        mock.patch.object(Run, "load", begins),
    ):
        yield steps


def results(run):
    weights = {
        path.relative_to(run): path.read_bytes()
        for path in run.glob("stages/*/model/*.safetensors")
    }
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    of_the_clock = ("time", "tokens_per_second", "memory")
    return weights, [
        {name: each for name, each in line.items() if name not in of_the_clock} for line in logged
    ]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "{name: lora, rank: 2, dropout: 0.1}"])
def test_stopped_and_killed_within_and_between_stages_it_ends_as_if_it_had_not_been(
    tmp_path, adapter
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_chain(whole, adapter)

    with (
        trained_steps(stopped_in=(SFT, 3)) as steps,
        pytest.raises(Stopped, match="saved at step 3 of 4"),
    ):
        run_chain(parts, adapter)
    assert steps == [
        (PRETRAIN, 1),
        (PRETRAIN, 2),
        (PRETRAIN, 3),
        (PRETRAIN, 4),
        (SFT, 1),
        (SFT, 2),
        (SFT, 3),
    ]

    with trained_steps(killed_before="dpo") as steps, pytest.raises(Killed):
        run_chain(parts, adapter, resume=True)
    assert steps == [(SFT, 4)]

    with trained_steps(killed_after=(DPO, 3)) as steps, pytest.raises(Killed):
        run_chain(parts, adapter, resume=True)
    assert steps == [(DPO, 1), (DPO, 2), (DPO, 3)]

    with trained_steps() as steps:
        result = run_chain(parts, adapter, resume=True)
    assert steps == [(DPO, 3), (DPO, 4)]  # from the checkpoint after step 2
    assert results(parts) == results(whole)
    assert len(set(results(parts)[0].values())) == 3  # each stage changed something

    assert result.path == parts / "stages/3-dpo/model"
    loaded = open_run(parts).load_policy()
    assert loaded.saves == result.saves


RLHF = {
    "example": "rlhf",
    "more": [
        "stages.2.max_new_tokens=4",
        "stages.2.ppo_epochs=2",
        "stages.2.kl_target=0.1",
        "stages.2.training={per_device_train_batch_size: 4, logging_steps: 1}",
    ],
}


@pytest.mark.slow
def test_the_chain_of_human_feedback_goes_on_from_anywhere(tmp_path):
    """Killed in the reward model's training, before PPO, and in the middle of one of its
    rollouts."""
    whole, parts, lora = (
        tmp_path / "whole",
        tmp_path / "parts",
        "{name: lora, rank: 2, dropout: 0.1}",
    )
    run_chain(whole, lora, **RLHF)

    with trained_steps(killed_after=(REWARD, 3)), pytest.raises(Killed):
        run_chain(parts, lora, **RLHF)

    with trained_steps(killed_before="ppo") as steps, pytest.raises(Killed):
        run_chain(parts, lora, resume=True, **RLHF)
    assert steps == [(REWARD, 3), (REWARD, 4)]  # from the checkpoint after step 2

    with trained_steps(killed_after=(PPO, 3)) as steps, pytest.raises(Killed):
        run_chain(parts, lora, resume=True, **RLHF)
    assert steps == [(PPO, 1), (PPO, 2), (PPO, 3)]

    with trained_steps() as steps:
        result = run_chain(parts, lora, resume=True, **RLHF)
    assert steps == [(PPO, 3), (PPO, 4)]  # from between the two rollouts
    assert results(parts) == results(whole)
    assert result.path == parts / "stages/3-ppo/model"
