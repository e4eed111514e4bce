"""One of several processes, started as by torchrun: trains a recipe, and rank 0 prints what was
logged.

Argument: the recipe as JSON.
"""

import json
import sys

import torch

import tunewright
from tunewright.events import Evaluated, Event, Logged

KEPT = ("loss", "grad_norm", "tokens")


def main(recipe: dict) -> None:
    torch.set_num_threads(1)
    found: list[dict] = []

    def listen(event: Event) -> None:
        if isinstance(event, Logged | Evaluated):
            found.append({name: event.metrics[name] for name in KEPT if name in event.metrics})

    tunewright.train(recipe, on_event=listen)
    if found:
        print("RESULT " + json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
