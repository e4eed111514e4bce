"""Data preparation ahead of training."""

import json
from pathlib import Path
from typing import Any

from tunewright.run import Run
from tunewright.terminal import printable
from tunewright.words import counted


def written_to(folder: Path | None) -> list[str]:
    """Recipe overrides that make the dataset write to this folder; empty without a folder."""
    return (
        [f"dataset.cache={json.dumps(str(folder.resolve()))}", "dataset.prepared=null"]
        if folder
        else []
    )


def prepare_all(run: Run, folder: Path | None) -> None:
    """Build the data of every stage, and print a summary."""
    loaded = run.load(weights="none")
    for number, stage in enumerate(run.recipe.stages):
        data: Any = run.call("dataset", "build_dataset", run.data_request(loaded, number))
        rows = (
            counted(len(data.train), "row")
            if len(data.train)
            else "streamed rows, and evaluation data"
        )
        print(f"stage {number + 1}, {stage.name}: {rows} of {counted(data.rows_read, 'record')}")
        for name, rows in data.evals.items():
            print(printable(f"  evaluation {name}: {counted(len(rows), 'row')}"))
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
