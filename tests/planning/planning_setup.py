"""The same stage measured twice: on fake tensors, and in a real run on the CPU."""

from tunewright import check
from tunewright.run import Run
from tunewright_hf.planning.batch import workload_of_recipe
from tunewright_hf.planning.probe import run_steps
from tunewright_hf.planning.run import measure_stage
from tunewright_hf.planning.storages import StorageCounter

LENGTH = 48


def resolved(folder, *, training=None, layers=2, hidden=128, **sections):
    """A recipe for a tiny model, two rows of LENGTH tokens a batch."""
    recipe = {
        "model": "tiny",
        "family": {"name": "llama", "tiny_layers": layers, "tiny_hidden_size": hidden},
        "template": "llama3",
        "data": [{"path": "rows.jsonl"}],
        "stage": "sft",
        "adapter": "full",
        "output": str(folder / "run"),
        "training": {
            "precision": "fp32",
            "max_length": LENGTH,
            "per_device_train_batch_size": 2,
            **(training or {}),
        },
        **sections,
    }
    return check.resolve(recipe, combined=False)


def workload(recipe):
    stage = recipe.stages[0]
    packing = getattr(stage.choice.options, "packing", False)
    return workload_of_recipe(stage.choice.plugin.rows, stage.training, packing)


def planned(recipe, *, whole=False):
    return measure_stage(recipe, 0, workload(recipe), on_gpu=False, whole=whole)[0]


def real(recipe):
    """Two steps of the recipe's own stage, with real storages."""
    return run_steps(Run(recipe), 0, workload(recipe), StorageCounter())
