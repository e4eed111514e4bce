"""Trains recipes, or goes on with their runs, one after the other in the same processes.

Arguments: JSON of lists of a recipe and its overrides; `resume` to go on.
"""

import json
import sys
from pathlib import Path

import torch

from tunewright.check import resolve
from tunewright.run import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    for recipe, *overrides in json.loads(sys.argv[1]):
        train(resolve(Path(recipe), overrides), resume="resume" in sys.argv[2:])
