"""Collators: padded or packed batches.

A row has input_ids and labels (lists of T ints) and, if a message has a weight of its own,
loss_weights; for models with media also `media`. A batch has `inputs`, which are the model's
arguments, media among them, and beside them labels, and loss_weights if the rows have them;
`unreadable` has the problems of rows that are left out, see MediaRows.prepared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from tunewright import RecipeError
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.media.collation import MediaRows

__all__ = [
    "Padded",
    "Row",
    "tokens",
]

Row = dict[str, Any]
Batch = dict[str, Any]


@dataclass
class Padded:
    """Right-padded batch: inputs (input_ids, attention_mask) and labels, all (B, T)."""

    pad_id: int
    multiple: int = 1  # T is rounded up to a multiple of this
    media: MediaRows | None = None

    def __call__(self, rows: Sequence[Row]) -> Batch:
        rows, unreadable = self.media.prepared(rows) if self.media else (list(rows), [])
        longest = max(len(row["input_ids"]) for row in rows)
        length = -(-longest // self.multiple) * self.multiple

        def padded(columns: Iterable[Sequence[Any]], fill: float) -> Tensor:
            return torch.tensor([[*column, *[fill] * (length - len(column))] for column in columns])

        inputs = {
            "input_ids": padded((row["input_ids"] for row in rows), self.pad_id),
            "attention_mask": padded(([1] * len(row["input_ids"]) for row in rows), 0),
        }
        labels = padded((row["labels"] for row in rows), IGNORED)
        if self.media:
            types = self.media.token_types(rows)
            inputs |= {name: padded(columns, 0) for name, columns in types.items()}
            inputs |= self.media.joined(self.media.tensors(rows))
            inputs |= self.media.further_inputs(inputs, labels)
        batch: Batch = {"inputs": inputs, "labels": labels}
        if has_weights(rows):
            batch["loss_weights"] = padded(map(weights, rows), 0.0)
        return batch | ({"unreadable": unreadable} if unreadable else {})


@dataclass
class Packed:
    """Packed batch of one sequence: inputs (input_ids, position_ids) and labels, all (1, T).
    position_ids restart at each row; see MediaRows.position_ids for models with media.

    transformers separates the rows by position_ids alone, and only without attention_mask and
    cache. The first label of a row is ignored: it would be predicted from the previous row.
    """

    media: MediaRows | None = None

    def __call__(self, rows: Sequence[Row]) -> Batch:
        rows, unreadable = self.media.prepared(rows) if self.media else (list(rows), [])
        inputs = {
            "input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]]),
            "position_ids": torch.tensor(
                [[place for row in rows for place in range(len(row["input_ids"]))]]
            ),
        }
        each_label = (label for row in rows for label in (IGNORED, *row["labels"][1:]))
        labels = torch.tensor([list(each_label)])
        if self.media:
            tensors = self.media.tensors(rows)
            inputs["position_ids"] = self.media.position_ids(rows, tensors)
            for name, columns in self.media.token_types(rows).items():
                inputs[name] = torch.tensor([[each for column in columns for each in column]])
            inputs |= self.media.joined(tensors) | self.media.further_inputs(inputs, labels)
        batch: Batch = {"inputs": inputs, "labels": labels}
        if has_weights(rows):
            batch["loss_weights"] = torch.tensor(
                [[weight for row in rows for weight in weights(row)]]
            )
        return batch | ({"unreadable": unreadable} if unreadable else {})


def has_weights(rows: Sequence[Row]) -> bool:
    return any(row.get("loss_weights") is not None for row in rows)


def weights(row: Row) -> Sequence[float]:
    """Loss weights of the row (T,); default: 1."""
    return row.get("loss_weights") or [1.0] * len(row["input_ids"])


def tokens(batch: Batch) -> int:
    """Number of tokens in a batch, without padding."""
    inputs = batch["inputs"]
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum())
    return int(inputs["input_ids"].numel())


def check_packing(config: Any) -> None:
    """Raise RecipeError if packed rows would influence each other through layers with a recurrent
    state."""
    # only configs of models with several layer types have layer_types
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


def check_rows_apart(model: Any, media: MediaRows | None = None) -> None:
    """Raise RecipeError if a packed row attends to the row before it, which is tried with a few
    tokens, and, if the model takes media, with a row that has an image.

    Several classes of transformers 5.23 ignore position_ids in their attention mask, without a
    warning; others (Gemma 3) do so only where there are images.
    """
    training = model.training
    model.eval()
    with torch.no_grad():
        many = media is not None and media.numbering is not None
        apart = _apart(model, 4 if many else None)
        apart = apart and (media is None or _same_logits(model, media))
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


def _apart(model: Any, directions: int | None) -> bool:
    """Whether the logits of a row of text depend less on the row before it than in one sequence.
    directions: in which tokens are numbered; None: in one."""
    first, other, row = (
        torch.arange(4 * number, 4 * number + 4, device=model.device) for number in (1, 2, 3)
    )

    def change(places: Tensor) -> Tensor:
        """Largest change of the row's logits when the row before it changes."""
        position_ids = places[None] if directions is None else places.expand(directions, 1, -1)
        # (1, 8, V)
        one, two = (
            model(
                input_ids=torch.cat([before, row])[None],
                position_ids=position_ids,
                use_cache=False,
            ).logits
            for before in (first, other)
        )
        return (one[:, 4:] - two[:, 4:]).abs().max()

    places = torch.arange(8, device=model.device)
    # mixtures of experts round differently with other rows
    return bool(change(places % 4) < 0.1 * change(places))


def _same_logits(model: Any, media: MediaRows) -> bool:
    """Whether a row with two media, and one of text, have the same logits alone and in a pack,
    after a row with a medium."""
    one, other = (media.probe_rows(seed)[0] for seed in (0, 1))
    two = media.together(one, other)
    # as long as the others: masks may be wrong only where those have their media
    ids = [30 + place % 16 for place in range(len(two["input_ids"]))]
    rows = [one, two, {"input_ids": ids, "labels": ids, "media": []}]
    packed = Packed(media)

    def logits(rows: Sequence[Row]) -> Tensor:
        inputs = {name: each.to(model.device) for name, each in packed(rows)["inputs"].items()}
        return model(**inputs, use_cache=False).logits.float()  # type: ignore[no-any-return]

    alone, after = torch.cat([logits([row]) for row in rows], dim=1), logits(rows)
    tolerance = 2e-2 if _is_rounded(alone) else 1e-4
    return bool((alone - after).abs().max() <= tolerance * alone.abs().max())


def _is_rounded(logits: Tensor) -> bool:
    """Whether they were computed with 16 bits, as under autocast, where a model says float32."""
    return any(torch.equal(logits, logits.to(d).float()) for d in (torch.bfloat16, torch.float16))
