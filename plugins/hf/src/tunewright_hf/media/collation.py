"""MediaRows: tensors of a batch's media, for collators. Runs in data-loader workers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunewright import RowError, RunError
from tunewright.types import LoadedModel
from tunewright_hf.media.decode import decode, measure
from tunewright_hf.media.expander import Medium, noise
from tunewright_hf.media.files import Source
from tunewright_hf.media.foreign import media_processor
from tunewright_hf.media.positions import Numbering, numbering
from tunewright_hf.media.shapes import MediaKind, Shape

__all__ = ["MediaRows", "media_rows"]

Row = dict[str, Any]
_IGNORED = -100  # label of tokens that are not trained


class MediaRows:
    """Inputs that the model takes of the rows of a batch beside their ids.

    dtype: of floating-point tensors. root: base of relative paths. numbering: the model's own way
    to number tokens; None: consecutively. further: as LoadedModel.media_inputs. in_every_batch: see
    `completed`. skips: rows whose media cannot be read are not trained.
    """

    def __init__(
        self,
        processor: Any,
        dtype: torch.dtype = torch.float32,
        root: Path | None = None,
        numbering: Numbering | None = None,
        further: Any = None,
        in_every_batch: bool = False,
        skips: bool = False,
    ) -> None:
        self.media, self.dtype, self.root = media_processor(processor), dtype, root or Path()
        self.numbering, self.further = numbering, further
        self.in_every_batch, self.skips = in_every_batch, skips

    def probes(self) -> list[dict[str, Tensor]]:
        """The model's inputs for each of `probe_rows`."""
        found = []
        for row in self.probe_rows(0):
            ids = torch.tensor([row["input_ids"]])
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            inputs |= {name: torch.tensor(each) for name, each in self.token_types([row]).items()}
            inputs |= self.joined(self.tensors([row]))
            found.append(inputs | self.further_inputs(inputs, torch.full_like(ids, _IGNORED)))
        return found

    def prepared(self, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
        """Rows for a batch, and what is wrong with media that cannot be read: in place of their
        rows stands a small medium that is not trained. Raises RowError unless `skips` is set."""
        if not self.skips:
            return self.completed(rows), []
        found, problems = [], []
        for row in rows:
            try:
                found.append(row | {"media": self.read_all(row.get("media") or ())})
            except RowError as error:
                problems.append(str(error))
                probe = self.probe_rows(0)[0]
                weights = [0.0] * len(probe["labels"])
                found.append(probe | ({"loss_weights": weights} if row.get("loss_weights") else {}))
        return self.completed(found), problems

    def completed(self, rows: Sequence[Row]) -> list[Row]:
        """The rows, of which the last one ends in a small image or sound that is not trained if
        `in_every_batch` is set and none has media.

        So all ranks run the same modules where towers are sharded or trained. In causal attention
        the tokens before it do not depend on it.
        """
        if not self.in_every_batch or any(row.get("media") for row in rows):
            return list(rows)
        *others, last = rows
        probe = self.probe_rows(0)[0]
        more = len(probe["input_ids"])
        ended = {name: [*last[name], *probe[name]] for name in ("input_ids", "labels")}
        if last.get("loss_weights"):
            ended["loss_weights"] = [*last["loss_weights"], *[0.0] * more]
        return [*others, last | ended | {"media": probe["media"]}]

    def further_inputs(self, inputs: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Inputs of a whole batch that only some models take."""
        return self.further(inputs, labels, self.media.processor) if self.further else {}

    def tensors(self, rows: Sequence[Row]) -> list[dict[str, Tensor]]:
        """Tensors of the media of each row, empty for one without. Media that several rows share,
        as the two answers of a pair do, are decoded once.

        Raises RowError if a file cannot be read, RunError if it was changed since the data was
        prepared.
        """
        made: dict[Any, dict[str, Any]] = {}
        found = []
        for row in rows:
            parts = row.get("media") or ()
            key = tuple(map(_key, parts))
            if key not in made:
                made[key] = self._of_media([self._read(part) for part in parts])
            places_of(row["input_ids"], made[key]["ids"])  # was it changed?
            found.append({name: each for name, each in made[key].items() if name != "ids"})
        return found

    def joined(self, tensors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of all rows, as the model takes them."""
        return joined(tensors, self.media.axes if len(tensors) > 1 else {})

    def token_types(self, rows: Sequence[Row]) -> dict[str, list[list[int]]]:
        """Kind of each token of each row, by the model's name for it; empty if it takes none."""
        types = [self.media.token_types(row["input_ids"]) for row in rows]
        return {name: [each[name] for each in types] for name in types[0]}

    def position_ids(self, rows: Sequence[Row], tensors: Sequence[dict[str, Tensor]]) -> Tensor:
        """Positions in a pack, which restart at each row: (1, T), or (4, 1, T) if the model numbers
        images in three directions. The first of the four keeps rows apart."""
        found = []
        for row, own in zip(rows, tensors, strict=True):
            places = torch.arange(len(row["input_ids"]))[None]
            if self.numbering is not None:
                types = self.media.token_types(row["input_ids"])
                places = torch.cat([places[None], self.numbering(row["input_ids"], types, own)])
            found.append(places)
        return torch.cat(found, dim=-1)

    def probe_rows(self, seed: int) -> list[Row]:
        """Rows of some text around a small image, or a sound, to try a model with: one for each
        kind that it takes. seed: of their content, which does not change their length."""
        return [self._probe_row(shape, seed) for shape in self.media.probes()]

    def together(self, one: Row, other: Row) -> Row:
        """A row with the media of two probe rows, whose tokens may be others than alone."""
        media = [*one["media"], *other["media"]]
        parts = [list(each) for each in self.media.tensors(media)["ids"]]
        ids = [4, 5, *parts[0], 6, *parts[1], 7, 8]
        return {"input_ids": ids, "labels": [_IGNORED] * len(ids), "media": media}

    def _probe_row(self, shape: Shape, seed: int) -> Row:
        if shape.kind == "image":
            shape = replace(shape, width=96, height=64)
        medium = Medium(shape, noise(shape, seed))
        (ids,) = self.media.tensors([medium])["ids"]
        before, after = (range(first, first + 4) for first in (4 + 4 * seed, 20))
        ids = [*before, *ids, *after]
        return {"input_ids": ids, "labels": [_IGNORED] * len(ids), "media": [medium]}

    def _read(self, part: Any) -> Medium:
        if isinstance(part, Medium):  # was read, or is a probe
            return part
        return self.read(part["kind"], str(self.root / part["path"]))

    def read_all(self, parts: Sequence[Row]) -> list[Medium]:
        """Media of a row as the model sees them. Raises RowError as `read` does."""
        return [self._read(part) for part in parts]

    def full_paths(self, parts: Sequence[Row]) -> list[dict[str, str]]:
        return [{"kind": part["kind"], "path": str(self.root / part["path"])} for part in parts]

    def before(self, row: Row, end: int) -> list[Row]:
        """Media of a row that stand in its first `end` tokens. Reads headers; raises RowError."""
        parts = row.get("media") or []
        places = places_of(row["input_ids"], self._expanded(parts)[1])
        return [part for part, (_, stop) in zip(parts, places, strict=True) if stop <= end]

    def prompt_text(self, ids: Sequence[int], parts: Sequence[Row]) -> str:
        """The rendered text of a prompt, with one placeholder for each medium. Reads headers;
        raises RowError."""
        shapes, media = self._expanded(parts)
        one: list[int] = []
        at = 0
        for shape, (start, end) in zip(shapes, places_of(ids, media), strict=True):
            one += [*ids[at:start], self.media.placeholder(shape.kind)]
            at = end
        text: str = self.media.processor.tokenizer.decode([*one, *ids[at:]])
        return self.media.restored(text, shapes) if parts else text

    def _expanded(self, parts: Sequence[Row]) -> tuple[list[Shape], list[tuple[str, Any]]]:
        """Shape, and path with ids, of each medium of a row."""
        shapes = [measure(part["kind"], str(self.root / part["path"])) for part in parts]
        found = [each.ids for each in self.media.expansions(shapes)] if parts else []
        return shapes, list(zip((part["path"] for part in parts), found, strict=True))

    def read(self, kind: MediaKind, source: Source) -> Medium:
        """A medium as the model sees it. Raises RowError if it cannot be read."""
        path = source if isinstance(source, str) else ""
        if kind == "image":  # opened once: its pixels tell its size
            pixels: Any = decode(kind, source)
            return Medium(Shape(kind, *pixels.size), pixels, path)
        shape = measure(kind, source)
        return Medium(shape, decode(kind, source, self.media.frames(shape)), path)

    def _of_media(self, media: Sequence[Medium]) -> dict[str, Any]:
        """Tensors by name, and as `ids` the path and the ids of each medium."""
        if not media:
            return {"ids": []}
        found = self.media.tensors(media)
        paths = [medium.path for medium in media]
        ids = list(zip(paths, found.pop("ids"), strict=True))
        made = {name: torch.as_tensor(value) for name, value in found.items()}
        return {"ids": ids} | {
            name: each.to(self.dtype) if each.is_floating_point() else each
            for name, each in made.items()
        }


def _key(part: Any) -> Any:
    return id(part) if isinstance(part, Medium) else (part["kind"], part["path"])


def media_rows(
    loaded: LoadedModel,
    root: Path | None = None,
    in_every_batch: bool = False,
    skips: bool = False,
) -> MediaRows | None:
    """MediaRows for a loaded model; None if it takes no media. root: `Data.media_root`."""
    if loaded.processor is None:
        return None
    model, further = loaded.model, loaded.media_inputs
    return MediaRows(
        loaded.processor, model.dtype, root, numbering(model), further, in_every_batch, skips
    )


def joined(
    rows: Sequence[dict[str, Tensor]], axes: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Tensor]:
    """Tensors of all rows, one row's after the other. Smaller ones are padded with zeros at their
    ends, in all dimensions but that. axes: the dimension by name; others: the first."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: _concatenated([row[name] for row in rows if name in row], axes.get(name, 0))
        for name in names
    }


def _concatenated(tensors: Sequence[Tensor], axis: int) -> Tensor:
    sizes = [max(each) for each in zip(*(tensor.shape for tensor in tensors), strict=True)]

    def padded(tensor: Tensor) -> Tensor:
        missing = [size - own for size, own in zip(sizes, tensor.shape, strict=True)]
        missing[axis] = 0
        sides = [side for own in missing[::-1] for side in (0, own)]
        return nn.functional.pad(tensor, sides) if any(sides) else tensor  # pad would copy it

    return torch.cat([padded(tensor) for tensor in tensors], dim=axis)


def places_of(
    ids: Sequence[int], media: Sequence[tuple[str, Sequence[int]]]
) -> list[tuple[int, int]]:
    """Start and end of each medium in a row. media: name and ids of each, in the row's order.
    Raises RunError if they are not in the row."""
    found, at = [], 0
    row = np.asarray(ids, np.int32).tobytes()
    for name, own in media:
        piece = np.asarray(own, np.int32).tobytes()
        at = _aligned(row, piece, at)
        if at < 0:
            problem = f"takes {len(own)} tokens, which are not in its row: it was changed"
            raise RunError(problem, place=name, hint="prepare the data again")
        found.append((at // 4, at // 4 + len(own)))
        at += len(piece)
    return found


def _aligned(row: bytes, piece: bytes, at: int) -> int:
    """Position of the piece, at a multiple of four bytes; -1 if there is none."""
    while (place := row.find(piece, at)) % 4 and place >= 0:
        at = place + 1
    return place
