"""Trains recipes one after the other, in one process or in each of those that torchrun started:
importing what they need takes longer than they do.

Arguments: JSON of lists of a recipe and its overrides; `resume` to train each once more then, from
the middle of its stages: what the first time left is moved to OUTPUT-whole.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch

from tunewright.check import resolve
from tunewright.run import train


def interrupt(output: Path) -> None:
    """Make a finished run one that was interrupted in each of its stages."""
    shutil.copytree(output, output.with_name(f"{output.name}-whole"))
    for checkpoints in output.rglob("checkpoints"):
        (max(checkpoints.glob("step-*")) / "manifest.json").unlink()
    state = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps(state | {"status": "interrupted", "stages": []}))


def main(runs: list[list[str]], resume: bool) -> None:
    torch.set_num_threads(1)
    recipes = [resolve(Path(recipe), overrides) for recipe, *overrides in runs]
    for recipe in recipes:
        train(recipe)
    if not any("deepspeed" in override for run in runs for override in run):
        assert "deepspeed" not in sys.modules, "asked for by nobody, and imported"
    if not resume:
        return
    if os.environ["RANK"] == "0":
        for resolved in recipes:
            interrupt(Path(resolved.recipe.output))
    torch.distributed.barrier()
    for recipe in recipes:
        train(recipe, resume=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), "resume" in sys.argv[2:])
