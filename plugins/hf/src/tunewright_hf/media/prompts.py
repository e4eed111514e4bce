"""Media of one prompt, for inference."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunewright_hf.media.collation import MediaRows, places_of
from tunewright_hf.media.expander import Medium

__all__ = ["PromptMedia", "prompt_media"]


@dataclass(frozen=True, eq=False, slots=True)
class PromptMedia:
    """Inputs of a prompt of T tokens beside its ids.

    inputs: of the model, for the whole prompt at once. positions: (4, 1, T); None: consecutive.
    offset: added to the index of a token after the media gives its position. keys: T numbers that
    are equal for equal beginnings of prompts: for tokens of media by what is in these. end: index
    after the last token that only a pass over the whole prompt computes.
    """

    inputs: dict[str, Tensor]
    positions: Tensor | None
    offset: int
    keys: list[int]
    end: int


def prompt_media(
    rows: MediaRows, ids: Sequence[int], media: Sequence[Medium]
) -> PromptMedia | None:
    """Media of a prompt with these ids, in its order. None for a text to whose ids the model takes
    no further input. Raises RunError if the ids are not those of the media."""
    given = torch.tensor([list(ids)])
    inputs = {"input_ids": given, "attention_mask": torch.ones_like(given)}
    row = {"input_ids": ids, "media": media}
    (tensors,) = rows.tensors([row])
    further = rows.further_inputs(inputs | tensors, torch.full_like(given, -100))
    if not media and not further:
        return None
    types = {name: torch.tensor(each) for name, each in rows.token_types([row]).items()}
    positions, offset = None, 0
    if rows.numbering is not None:
        # with a further token of text: a video's frames may have higher positions than the last
        positions = rows.position_ids([row | {"input_ids": [*ids, 0]}], [tensors])
        offset = int(positions[-1, 0, -1]) - len(ids)
        positions = positions[..., :-1]
    expansions = rows.media.expansions([each.shape for each in media]) if media else []
    places = places_of(ids, [("", each.ids) for each in expansions])
    keys = list(ids)
    for medium, (start, end) in zip(media, places, strict=True):
        keys[start:end] = [_key(medium, ids[start:end])] * (end - start)
    # further inputs may have the prompt's tokens see each other
    end = len(ids) if further else max((end for _, end in places), default=0)
    return PromptMedia(types | tensors | further, positions, offset, keys, end)


def _key(medium: Medium, ids: Sequence[int]) -> int:
    """A negative number for what is in a medium; token ids are none."""
    found = hashlib.blake2b(repr((medium.shape, *ids)).encode(), digest_size=7)
    found.update(medium.content.tobytes())  # of images of Pillow and of arrays
    return -1 - int.from_bytes(found.digest(), "big")
