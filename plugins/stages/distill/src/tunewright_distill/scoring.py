"""Compute a teacher's likeliest tokens for all rows, or find those that were computed before."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunewright import RecipeError
from tunewright.types import TrainRequest
from tunewright_distill.cached import MANIFEST, Store, Writer, read_identity
from tunewright_distill.losses import likeliest, log_softmax
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.checkpoints.folder import write_folder
from tunewright_hf.losses.causal_lm import shift
from tunewright_hf.training.stage_trainer import moved

if TYPE_CHECKING:
    from tunewright_distill.training import DistillTrainer

FOLDER = "teacher"  # in the stage's folder `checkpoints`, which is removed with the run
_POSITIONS = 256  # scored at a time


def check_can_cache(request: TrainRequest) -> None:
    """Raise RecipeError if rows cannot be scored before training."""
    place = "stage.cache_top_k"
    if isinstance(request.data.train, RowStream):
        hint = "leave it out, or set dataset.streaming: false"
        raise RecipeError("rows are read while training goes on", place=place, hint=hint)
    if request.training.unreadable_media != "error":
        hint = "leave it out, or set training.unreadable_media: error"
        raise RecipeError("rows may be left out for their media", place=place, hint=hint)


def stores(trainer: "DistillTrainer", options: Any) -> dict[str, Store]:
    """The teacher's tokens for each set of rows, `train` first. Raises RecipeError if those of
    another run are of other rows."""
    sets = {"train": trainer.request.data.train}
    sets |= {f"eval{number}": rows for number, rows in enumerate(trainer.evals.values())}
    numbers = {name: np.arange(len(rows)) for name, rows in sets.items()}
    numbers["train"] = np.asarray(trainer.batches.trained_rows())
    identity = {
        "fingerprint": trainer.request.data.fingerprint,
        "rows": [len(rows) for rows in sets.values()],
        "top_k": options.cache_top_k,
        "temperature": options.divergence_temperature,
    }
    if options.teacher_logits:
        folder = Path(options.teacher_logits)
        _check(folder, identity)
    else:
        folder = trainer.request.folder / "checkpoints" / FOLDER
        identity |= {"teacher": options.teacher, "order": trainer.batches.identity()}
        # compared as it is written
        identity = json.loads(json.dumps(identity))
        if trainer.any_rank(read_identity(folder) != identity):
            _write(trainer, folder, identity, sets, numbers)
    found = {name: Store(folder, name) for name in sets}
    for name, store in found.items():
        if count := store.missing(numbers[name].tolist()):
            problem = f"{folder} has no logits for {count:,} of the rows that are trained on"
            hint = "write them with a run over as many steps, or leave teacher_logits out"
            raise RecipeError(problem, place="stage.teacher_logits", hint=hint)
    return found


def _check(folder: Path, identity: dict[str, Any]) -> None:
    """Raise RecipeError if the folder of another run is of something else."""
    place, there = "stage.teacher_logits", read_identity(folder)
    if there is None:
        problem = f"{folder} holds no {MANIFEST}"
        hint = "name the folder checkpoints/teacher of a run with cache_top_k"
        raise RecipeError(problem, place=place, hint=hint)
    if differ := [name for name, value in identity.items() if there.get(name) != value]:
        name = differ[0]
        problem = f"{folder} is of {name} {there.get(name)}, and this run of {identity[name]}"
        hint = "use the same data, seed, validation, cache_top_k and divergence_temperature"
        raise RecipeError(problem, place=place, hint=hint)


def _write(
    trainer: "DistillTrainer",
    folder: Path,
    identity: dict[str, Any],
    sets: dict[str, Any],
    numbers: dict[str, np.ndarray],
) -> None:
    meet = trainer.accelerator.wait_for_everyone

    def write(temporary: Path) -> None:
        meet()  # the folder exists
        for name, rows in sets.items():
            _score_all(trainer, Writer(temporary, name, trainer.rank), rows, numbers[name])
        meet()  # every rank has written its files
        if trainer.rank == 0:
            (temporary / MANIFEST).write_text(json.dumps(identity), "utf-8")

    write_folder(folder, write, rank=trainer.rank)
    meet()


@torch.no_grad()
def _score_all(trainer: "DistillTrainer", writer: Writer, rows: Any, numbers: np.ndarray) -> None:
    """Write this rank's share of the rows, scored in batches of similar lengths."""
    numbers = numbers[np.argsort(-np.asarray(row_lengths(rows))[numbers], kind="stable")]
    size, ranks = trainer.request.training.per_device_eval_batch_size, trainer.run.data_world_size
    batches = [numbers[start : start + size].tolist() for start in range(0, len(numbers), size)]
    options, teacher = trainer.options, trainer.teacher
    assert teacher is not None
    if options.cache_top_k >= trainer.vocab:
        problem = f"is {options.cache_top_k}, and the models share {trainer.vocab} tokens"
        raise RecipeError(problem, place="stage.cache_top_k", hint="leave it out: all tokens count")
    for first in range(0, len(batches), ranks):
        trainer.check_stop()
        for chosen in batches[first:][trainer.run.data_rank : ranks][:1]:
            batch = moved(trainer.padded([rows[number] for number in chosen]), trainer.device)
            with trainer.autocast():
                states, score = teacher.states(batch["inputs"], batch["labels"])
                parts = [
                    likeliest(
                        log_softmax(
                            score(part).float()[:, : trainer.vocab], options.divergence_temperature
                        ),
                        options.cache_top_k,
                    )
                    for part in states.split(_POSITIONS)
                ]
            ids, logps = (torch.cat(each) for each in zip(*parts, strict=True))
            counts = shift(batch["labels"], None)[1].sum(1).long().tolist()
            split = [each[: sum(counts)].split(counts) for each in (ids, logps)]
            for number, *found in zip(chosen, *split, strict=True):
                writer.add(number, *found)
    writer.flush()
