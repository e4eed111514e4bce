"""Two processes train on pairs and labels as one does on the same rows in each step."""

import json
from pathlib import Path

import pytest
from answers_setup import run_stage
from test_pairs_training import CASES, adapted
from training_setup import logs_of

import forked

STAGES = [("bco", "full"), ("kto", "lora"), ("reward", "full")]


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    settings = {"max_steps": 4, "batching": "random", "per_device_eval_batch_size": 2}
    asked = json.dumps({**settings, "stages": STAGES, "per_device_train_batch_size": 2})
    worker = Path(__file__).parent / "answers_worker.py"
    done = forked.run(worker, str(tmp_path / "two"), asked, processes=2)
    assert done.codes == [0, 0], done.error[-3000:]
    found = [
        json.loads(line[7:]) for line in done.output.splitlines() if line.startswith("RESULT ")
    ]
    for (name, how), (logged, metrics, tokens) in zip(STAGES, found, strict=True):
        case = CASES[name]
        run, result = run_stage(
            tmp_path / name,
            adapted(case, how),
            case.stage,
            case.rows(14),
            evals={"it": case.rows(5, seed=4)},
            per_device_train_batch_size=4,
            **settings,
        )
        assert tokens == result.tokens
        assert metrics == pytest.approx(result.metrics, rel=1e-3, abs=1e-5)
        for two, one in zip(logged, logs_of(run), strict=True):
            assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
