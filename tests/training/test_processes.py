"""Two processes train as one does on the same global batch."""

import json
from pathlib import Path

import pytest
from training_setup import a_run, loaded, logs_of, lora, model, rows, run_training
from worker import with_optimizer

import forked

HERE = Path(__file__).parent


def on_two_processes(folder: Path, checkpoint: Path | None = None, **settings):
    more = [str(checkpoint)] if checkpoint else []
    done = forked.run(HERE / "worker.py", str(folder), json.dumps(settings), *more, processes=2)
    assert done.codes == [0, 0], done.error[-3000:]
    (line,) = [line for line in done.output.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"rows": 32, "batching": "random"},
        {
            "rows": 30,
            "packing": True,
            "max_length": 40,
            "lora": True,
            "gradient_accumulation_steps": 2,
        },
        {"rows": 32, "batching": "random", "optimizer": "adalomo", "max_grad_norm": 0},
    ],
    ids=["full", "lora, packed, accumulated", "updates inside the backward pass"],
)
def test_two_processes_are_one_with_twice_the_batch(tmp_path, settings):
    logged, metrics, tokens = on_two_processes(
        tmp_path / "two", **settings, per_device_train_batch_size=2, per_device_eval_batch_size=2
    )
    how = dict(settings)
    made = lora(model(), dropout=0.0) if how.pop("lora", False) else loaded(model())
    data = rows(how.pop("rows"))
    run = with_optimizer(a_run(tmp_path / "one"), how.pop("optimizer", None))
    _, result = run_training(
        tmp_path / "one",
        made,
        data,
        run=run,
        evals={"it": rows(7, seed=4)},
        per_device_train_batch_size=4,
        **how,
    )
    assert tokens == result.tokens
    assert metrics == pytest.approx(result.metrics, rel=1e-5)
    for two, one in zip(logged, logs_of(run), strict=True):
        assert two == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_two_processes_resume_where_they_were(tmp_path):
    settings = {"max_steps": 8, "save_steps": 4, "lora": True}
    logged, metrics, tokens = on_two_processes(tmp_path, **settings)
    manifest = json.loads((tmp_path / "checkpoints" / "step-4" / "manifest.json").read_text())
    assert {"rng-0.safetensors", "rng-1.safetensors"} <= manifest["files"].keys()
    (tmp_path / "checkpoints" / "step-8" / "manifest.json").unlink()
    again = on_two_processes(tmp_path, tmp_path / "checkpoints" / "step-4", **settings)
    assert again == [logged[-len(again[0]) :], metrics, tokens]
    assert len(again[0]) == 2
