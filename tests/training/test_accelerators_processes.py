"""Each accelerator on two processes, with data parallelism and with split sequences: the losses and
gradient norms of one process with the same global batch.

Sums of two processes come in another order: rel=1e-4. Liger needs a GPU.
"""

import json

import pytest
from accelerators_setup import go, on_two_processes

OTHERS = {
    "activation_checkpointing": {},
    "activation_offload": {"offload_to": "disk"},
    "compile": {"backend": "aot_eager"},
    "deepspeed": {"stage": 3},
    "fsdp": {},
    "neftune": {"alpha": 1e-5},
    "rope_scaling": {"rope_type": "linear", "factor": 2},
}
#: those that change what a training computes, and not only how
CHANGING = ("neftune", "rope_scaling")
PACKED = {"name": "sft", "packing": True}


def check(folder, accelerators, alone, stage, share):
    """Compare a training on two processes, each with `share` rows of a batch, with that of one."""
    sections = {"stage": stage, "training": {"max_steps": 2}}
    one = go(folder / "one", *alone, **sections)
    sections["training"]["per_device_train_batch_size"] = share
    two = on_two_processes(
        "accelerators_worker.py", folder / "two", json.dumps(accelerators), json.dumps(sections)
    )
    assert len(two) == len(one.metrics) == 2
    for mine, right in zip(two, one.metrics, strict=True):
        assert mine == pytest.approx(right, rel=1e-4)


def cells(cheap):
    """Names, all but one of them marked long."""
    return [pytest.param(name, marks=[] if name == cheap else pytest.mark.long) for name in OTHERS]


@pytest.mark.slow
@pytest.mark.parametrize("name", cells("activation_checkpointing"))
def test_data_parallel(tmp_path, name):
    given = {"name": name, **OTHERS[name]}
    check(tmp_path, [given], [given] if name in CHANGING else [], "sft", share=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", cells("rope_scaling"))
def test_with_split_sequences(tmp_path, name):
    given = {"name": name, **OTHERS[name]}
    accelerators = ["sequence_parallel", given]
    check(tmp_path, accelerators, [given] if name in CHANGING else [], PACKED, share=4)
