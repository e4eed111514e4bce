"""Log-probabilities under a reference model: cached for all rows before training, or computed per
batch."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.run import Run
from tunewright.types import LoadedModel, RunContext, StageResult, TrainRequest
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.batching.collators import Row
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.checkpoints.folder import write_folder
from tunewright_hf.checkpoints.state_codec import load_state, save_state
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.models import precision
from tunewright_hf.models.weight_sharing import share
from tunewright_hf.training.preference import LogpsTrainer, sequence_logps
from tunewright_hf.training.stage_trainer import Batch, TrainingSetup, moved

__all__ = [
    "ReferenceTrainer",
    "frozen",
    "load_other",
]

# in the stage's folder `checkpoints`, which is removed when the run is overwritten
FOLDER = "reference"
#: initial adapter values of PEFT that leave the base model unchanged
_HARMLESS = (True, False, None, "gaussian", "eva", "orthogonal")


class Referenced(Dataset[Row]):
    """Rows with their reference scores, as `reference` (K,)."""

    def __init__(self, rows: Any, scores: Tensor) -> None:
        self.rows, self.scores = rows, scores

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Row:
        return {**self.rows[number], "reference": self.scores[number]}


class ReferenceTrainer(LogpsTrainer):
    """Trains on answers, given their log-probabilities under a reference. Its options are
    ReferenceOptions."""

    scores = 2  # numbers kept of the reference per row: K

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup, options)
        run, request = setup.run, setup.request
        self.checkpoint_folder = request.folder / "checkpoints"
        if options.reference == "base":
            check_base(request.loaded)
        if options.cache_reference and isinstance(request.data.train, RowStream):
            hint = "set stage.cache_reference: false"
            raise RecipeError(
                "cannot score rows that are read while training goes on", place="data", hint=hint
            )
        self.second = None if options.cache_reference else second_model(run, request, options)
        scores = self._cached() if options.cache_reference else {}

        def held(name: str, rows: Any) -> Any:
            prepared = self.prepared(rows)
            return Referenced(prepared, scores[name]) if scores else prepared

        self.train_rows = held("train", request.data.train)
        self.evals = {name: held(f"eval {name}", rows) for name, rows in request.data.evals.items()}

    def prepared(self, rows: Any) -> Any:
        """Rows of a set in the form that is collated."""
        return rows

    def score(self, loss: CausalLoss, forward: Any, batch: Batch) -> Tensor:
        """Scores to keep of the reference for the rows of a batch: (B, K) in nats."""
        return sequence_logps(loss, forward, batch, len(self.columns)).sums.T

    def reference_of(self, batch: Batch) -> Tensor:
        """`score` of the reference, cached or computed."""
        if "reference" in batch:
            return batch["reference"]
        with self._reference() as loss:
            return self.score(loss, loss.model, batch)

    def cache_identity(self) -> dict[str, Any]:
        """Everything that scores depend on, besides the model at the start of the stage."""
        rows = {name: len(each) for name, each in self.request.data.evals.items()}
        data = {
            "fingerprint": self.request.data.fingerprint,
            "evals": rows,
            "order": self.batches.identity(),
        }
        return data | {"reference": self.options.reference}

    @contextmanager
    def _reference(self) -> Iterator[CausalLoss]:
        """The reference, without dropout and gradients."""
        with reference_mode(self.model, self.options.reference == "base"), self.autocast():
            yield self.second or self.causal_loss

    # ---- scoring all rows ahead of time ----------------------------------------------------------

    def _cached(self) -> dict[str, Tensor]:
        """Scores (rows, K) of each set, from the stage's folder or computed now. NaN for rows that
        are not trained on."""
        folder, identity = self.checkpoint_folder / FOLDER, self.cache_identity()
        found = _read(folder, identity)
        if self.any_rank(found is None):
            data, self.second = (
                self.request.data,
                second_model(self.run, self.request, self.options),
            )
            found = {"train": self._score_all(data.train, self.batches.trained_rows())}
            for name, rows in data.evals.items():
                found[f"eval {name}"] = self._score_all(rows, np.arange(len(rows)))
            self.second = None
            state = {"identity": identity, "scores": found}
            if self.rank == 0:
                write_folder(folder, lambda temporary: save_state(state, temporary, FOLDER))
            self.accelerator.wait_for_everyone()
        assert found is not None
        return found

    def _score_all(self, rows: Any, numbers: np.ndarray) -> Tensor:
        """Score rows in batches of similar lengths, the same for any number of ranks."""
        numbers = numbers[np.argsort(-np.asarray(row_lengths(rows))[numbers], kind="stable")]
        size, ranks = self.request.training.per_device_eval_batch_size, self.run.data_world_size
        batches = [numbers[start : start + size].tolist() for start in range(0, len(numbers), size)]
        prepared = self.prepared(rows)
        scores = torch.zeros(len(rows), self.scores)
        with self._reference() as loss:
            for first in range(0, len(batches), ranks):
                self.check_stop()
                place = first + self.run.data_rank
                # a rank that has run out repeats the last batch, to keep collectives in step
                batch = self.collate(
                    [prepared[number] for number in batches[min(place, len(batches) - 1)]]
                )
                found = self.score(loss, loss.model, moved(batch, self.device))
                if place < len(batches):
                    scores[batches[place]] = found.float().cpu()
        scores = self.total(scores)
        scores[np.setdiff1d(np.arange(len(rows)), numbers)] = torch.nan
        return scores


def second_model(run: RunContext, request: TrainRequest, options: Any) -> CausalLoss | None:
    """Load the reference if it is a separate model. Parameters that the policy does not train are
    shared with it. options: ReferenceModel."""
    if options.reference not in ("start", "base"):
        loaded = load_other(run, options.reference, options.reference_quantizer)
    elif "reference" in request.models:
        loaded = request.models["reference"]
    else:
        return None
    return CausalLoss(frozen(loaded, request).model)


def load_other(run: RunContext, path: str, quantizer: Any = None) -> LoadedModel:
    """Load another model than the policy, complete and not trained. quantizer: a section of its
    own; None: the recipe's. Raises RecipeError."""
    if quantizer:
        recipe = run.recipe.as_mapping() | {"quantizer": quantizer}
        run = Run(resolve(recipe, combined=False), trust_remote_code=run.trust_remote_code)
    # as the result of an earlier stage
    return run.load(prior=StageResult(Path(path), "model"), trainable=False)


def frozen(loaded: LoadedModel, request: TrainRequest) -> LoadedModel:
    """The model in evaluation mode, in the dtypes of the run. Parameters that the policy has too,
    and does not train, are shared with it."""
    number_format = precision.resolve(request.training.precision, loaded.model.device)
    precision.set_trained_dtypes(loaded.model, number_format)
    (request.sharding or NoSharding()).cast(loaded.model, number_format)
    share(loaded.model, request.loaded.model)
    loaded.model.eval()
    return loaded


@contextmanager
def reference_mode(model: Any, base: bool) -> Iterator[None]:
    """Run the model without dropout and gradients; base: also without its adapter."""
    training = model.training
    model.eval()
    with torch.no_grad(), model.disable_adapter() if base else nullcontext():
        yield
    model.train(training)


def check_base(loaded: LoadedModel) -> None:
    """Raise RecipeError if the model without its adapter is not the original model."""
    if loaded.saves != "adapter":
        hint = "take start: the model as it is when the stage begins"
        raise RecipeError(
            "the model has no adapter to leave out", place="stage.reference: base", hint=hint
        )
    # only LoRA has such a field
    begun = loaded.model.peft_config["default"].to_dict().get("init_lora_weights")
    if begun not in _HARMLESS:
        problem = f"adapters that begin with {begun} change the model below them"
        raise RecipeError(problem, place="stage.reference: base", hint="take start")


def _read(folder: Path, identity: dict[str, Any]) -> dict[str, Tensor] | None:
    if not (folder / f"{FOLDER}.json").is_file():
        return None
    state = load_state(folder, FOLDER)
    return state["scores"] if state["identity"] == identity else None
