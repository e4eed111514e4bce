"""Shares of a rank, beside a real training on two ranks."""

import json
from pathlib import Path

import pytest
from planning_setup import resolved

import forked
from tunewright_hf.planning.plan import Planner

WORKER = Path(__file__).parent / "sharded_worker.py"


@pytest.mark.long
@pytest.mark.parametrize(
    "accelerator",
    [
        {"name": "fsdp"},
        {"name": "fsdp", "reshard_after_forward": False},
        {"name": "deepspeed", "stage": 2},
        {"name": "deepspeed", "stage": 3},
    ],
    ids=lambda each: "-".join(map(str, each.values())),
)
def test_the_share_of_a_rank_is_that_of_a_real_one(tmp_path, accelerator):
    recipe = resolved(tmp_path, accelerators=[accelerator], layers=4, launch={"processes": 2})
    plan = Planner(on_gpu=False, read_data=False).plan(recipe)
    done = forked.run(WORKER, str(tmp_path), json.dumps(accelerator), processes=2)
    assert done.codes == [0, 0], done.error
    real = int(done.output.split("peak")[1].split()[0])
    assert plan.peak == pytest.approx(real, rel=0.15)


@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_a_stage_that_generates_gathers_all_weights(tmp_path, stage):
    more, least = {
        "sft": ({"predict_with_generate": True}, {}),
        "distill": ({"teacher": "tiny", "lmbda": 0.5}, {"teacher": "tiny"}),
    }[stage]
    fsdp = {"accelerators": [{"name": "fsdp"}], "launch": {"processes": 8}, "layers": 8}
    fsdp |= {"adapter": {"name": "lora"}}
    alone, generates = (
        Planner(on_gpu=False, read_data=False).plan(
            resolved(tmp_path, stage={"name": stage, **each}, **fsdp), size=(1, 8)
        )
        for each in (least, more)
    )
    assert generates.memory["weights"] > 2 * alone.memory["weights"]
    assert any("the time that generated answers take" in each for each in generates.notes)
    assert not any("generated answers" in each for each in alone.notes)
