"""Data prepared ahead of time."""

import json
from pathlib import Path
from typing import Any

from tunewright.run import Run
from tunewright.terminal import printable


def written_to(folder: Path | None) -> list[str]:
    """Overrides of a recipe with which its dataset writes into this folder; none without one."""
    return (
        [f"dataset.cache={json.dumps(str(folder.resolve()))}", "dataset.prepared=null"]
        if folder
        else []
    )


def prepare_all(run: Run, folder: Path | None) -> None:
    """Build the data of every stage, and print what was made of it."""
    loaded = run.load(weights="none")
    for number, stage in enumerate(run.recipe.stages):
        data: Any = run.call("dataset", "build_dataset", run.data_request(loaded, number))
        rows = (
            f"{len(data.train):,} rows" if len(data.train) else "streamed rows, and evaluation data"
        )
        print(f"stage {number + 1}, {stage.name}: {rows} of {data.rows_read:,} records")
        for name, rows in data.evals.items():
            print(printable(f"  evaluation {name}: {len(rows):,} rows"))
        for reason, count in data.dropped.items():
            print(printable(f"  dropped: {count:,} {reason}"))
        for note in data.notes:
            print(printable(f"  {note}"))
    if folder:
        print(
            printable(
                f"to train from {folder}, here or where it is copied to: dataset.prepared=FOLDER"
            )
        )
