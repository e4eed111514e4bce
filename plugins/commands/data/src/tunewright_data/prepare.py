"""Data preparation ahead of training."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewright.errors import RecipeError
from tunewright.run import Run
from tunewright.terminal import printable
from tunewright.types import DataRequest
from tunewright.words import counted


def written_to(folder: Path | None) -> list[str]:
    """Recipe overrides that make the dataset write to this folder; empty without a folder."""
    return (
        [f"dataset.cache={json.dumps(str(folder.resolve()))}", "dataset.prepared=null"]
        if folder
        else []
    )


def share_of(shard: str | None) -> tuple[int, int]:
    """Number of a shard, and of shards, of `I/N`; None is all of it. Raises RecipeError."""
    if shard is None:
        return 0, 1
    found = re.fullmatch(r"([0-9]{1,6})/([1-9][0-9]{0,5})", shard)
    if found is None or int(found[1]) >= int(found[2]):
        problem = f"found {shard!r:.80}, expected I/N with I from 0 to N-1, such as 0/4"
        raise RecipeError(problem, place="--shard")
    return int(found[1]), int(found[2])


def _shared(request: DataRequest, share: tuple[int, int]) -> DataRequest:
    """The request for every N-th part of the sources; evaluation data is in the first shard."""
    return replace(request, shard=share, eval_entries={} if share[0] else request.eval_entries)


def prepare_all(run: Run, folder: Path | None, share: tuple[int, int] = (0, 1)) -> None:
    """Build the data of every stage, and print a summary. share: as `share_of` returns it."""
    loaded = run.load(weights="none")
    for number, stage in enumerate(run.recipe.stages):
        request = _shared(run.data_request(loaded, number), share)
        data: Any = run.call("dataset", "build_dataset", request)
        if share != (0, 1) and not data.rows_read:
            print(f"stage {number + 1}, {stage.name}: no source in this shard")
            continue
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
