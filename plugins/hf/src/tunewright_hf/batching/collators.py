"""Rows to batches: padded, or packed without padding.

A row has input_ids and labels (lists of T ints) and, where a message has a weight of its own,
loss_weights. A batch has `inputs`, all of which reach the model, and beside them labels, and
loss_weights where rows have them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from tunewright import RecipeError
from tunewright_hf.losses.chunked_cross_entropy import IGNORED

__all__ = [
    "Row",
    "tokens",
]

Row = dict[str, Any]
Batch = dict[str, Any]


@dataclass
class Padded:
    """Rows side by side, padded on the right to the longest: inputs (input_ids, attention_mask) and
    labels, all (B, T)."""

    pad_id: int
    multiple: int = 1  # T is rounded up to a multiple of it

    def __call__(self, rows: Sequence[Row]) -> Batch:
        longest = max(len(row["input_ids"]) for row in rows)
        length = -(-longest // self.multiple) * self.multiple

        def padded(columns: Iterable[Sequence[Any]], fill: float) -> Tensor:
            return torch.tensor([[*column, *[fill] * (length - len(column))] for column in columns])

        inputs = {
            "input_ids": padded((row["input_ids"] for row in rows), self.pad_id),
            "attention_mask": padded(([1] * len(row["input_ids"]) for row in rows), 0),
        }
        batch: Batch = {
            "inputs": inputs,
            "labels": padded((row["labels"] for row in rows), IGNORED),
        }
        if has_weights(rows):
            batch["loss_weights"] = padded(map(weights, rows), 0.0)
        return batch


@dataclass
class Packed:
    """Rows one after the other: inputs (input_ids, position_ids) and labels, all (1, T), where
    position_ids restart at each row.

    transformers keeps the rows apart by position_ids alone, and only if there is no attention_mask
    and no cache. The first label of a row is ignored: nothing of its own stands before it.
    """

    def __call__(self, rows: Sequence[Row]) -> Batch:
        inputs = {
            "input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]]),
            "position_ids": torch.tensor(
                [[place for row in rows for place in range(len(row["input_ids"]))]]
            ),
        }
        labels = [label for row in rows for label in (IGNORED, *row["labels"][1:])]
        batch: Batch = {"inputs": inputs, "labels": torch.tensor([labels])}
        if has_weights(rows):
            batch["loss_weights"] = torch.tensor(
                [[weight for row in rows for weight in weights(row)]]
            )
        return batch


def has_weights(rows: Sequence[Row]) -> bool:
    return any(row.get("loss_weights") is not None for row in rows)


def weights(row: Row) -> Sequence[float]:
    """The row's loss weights (T); 1 where it has none of its own."""
    return row.get("loss_weights") or [1.0] * len(row["input_ids"])


def tokens(batch: Batch) -> int:
    """Tokens of a batch, padding left out."""
    inputs = batch["inputs"]
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum())
    return int(inputs["input_ids"].numel())


def check_packing(config: Any) -> None:
    """Raises RecipeError where rows of a pack would see each other: layers with a state along the
    row."""
    # only configurations of models with layers of several sorts have layer_types
    layers = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if mixing := sorted(layers - {"full_attention", "sliding_attention", "chunked_attention"}):
        raise RecipeError(
            (
                f"{config.model_type} has layers ({', '.join(mixing)}) in which packed "
                "rows see each other"
            ),
            place="stage.packing",
            hint="set packing: false; batching: token_budget wastes little padding",
        )


def check_rows_apart(model: Any) -> None:
    """Raises RecipeError where a row of a pack sees the row before it, which is tried with a few
    tokens.

    Several classes of transformers 5.23 make their attention mask without position_ids, and say so
    nowhere.
    """
    first, other, row = (
        torch.arange(4 * number, 4 * number + 4, device=model.device) for number in (1, 2, 3)
    )

    def change(position_ids: Tensor) -> Tensor:
        """How much the row's logits depend on what stands before it."""
        one, two = (
            model(
                input_ids=torch.cat([before, row])[None],
                position_ids=position_ids[None],
                use_cache=False,
            ).logits
            for before in (first, other)
        )  # (1, 8, V)
        return (one[:, 4:] - two[:, 4:]).abs().max()

    training = model.training
    model.eval()
    with torch.no_grad():
        places = torch.arange(8, device=model.device)
        apart = change(places % 4) < 0.1 * change(
            places
        )  # mixtures of experts round otherwise with other rows
    model.train(training)
    if not apart:
        raise RecipeError(
            (
                f"{model.config.model_type} in transformers {transformers.__version__} "
                "lets packed rows see each other"
            ),
            place="stage.packing",
            hint="set packing: false; batching: token_budget wastes little padding",
        )
