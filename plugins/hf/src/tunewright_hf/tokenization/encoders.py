"""Encoders of pieces of a text, for fast and for slow tokenizers."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A piece from the middle of a text is encoded after one of these, whose tokens are then dropped:
# alone, many tokenizers would take it for a beginning, and write a space. There is one that merges
# with letters, one with newlines.
_ANCHORS = ("\n", "a", ".")

Offsets = list[tuple[int, int]]  # of each token: characters [start, end), in order


class Encoder(Protocol):
    def whole(self, texts: list[str]) -> "Iterable[tuple[list[int], Offsets] | None]":
        """Each text's ids and offsets, or None where there are no offsets to be had."""

    def piece(self, text: str, first: bool, plain: bool = False) -> tuple[list[int], Offsets]:
        """first: the text begins with it; plain: added tokens in it are text."""


class FastEncoder:
    """The tokenizers library's own encoder, in a copy of ours, for its state is set by others'
    calls.

    plain: the copy, which adds nothing to a text and takes nothing away
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        self._json = tokenizer.backend_tokenizer.to_str()
        self.plain = Tokenizer.from_str(self._json)
        self.plain.no_truncation()
        self.plain.no_padding()
        self.plain.post_processor = (
            None  # adds nothing here, but takes white space out of the offsets
        )

    @cached_property
    def _without_added(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        state = json.loads(self._json) | {
            "added_tokens": [],
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
        return Tokenizer.from_str(json.dumps(state))

    def whole(self, texts: list[str]) -> Iterator[tuple[list[int], Offsets]]:
        for encoded in self.plain.encode_batch(texts, add_special_tokens=False):
            yield encoded.ids, encoded.offsets  # one row's at a time: a batch has millions of pairs

    def piece(self, text: str, first: bool, plain: bool = False) -> tuple[list[int], Offsets]:
        tokenizer = self._without_added if plain else self.plain
        for anchor in () if first else _ANCHORS:
            encoded = tokenizer.encode(anchor + text, add_special_tokens=False)
            offsets, length = encoded.offsets, len(anchor)
            dropped = bisect_left(offsets, (length,))
            if dropped and offsets[dropped - 1][1] == length:
                return encoded.ids[dropped:], [
                    (start - length, end - length) for start, end in offsets[dropped:]
                ]
        encoded = tokenizer.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets


class SlowEncoder:
    """Tokenizers in Python, which tell no offsets: all ids of a piece get the piece's."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def whole(self, texts: list[str]) -> list[None]:
        return [None] * len(texts)

    def piece(self, text: str, first: bool, plain: bool = False) -> tuple[list[int], Offsets]:
        ids = self._encode(text, plain) if first else self._after_newline(text, plain)
        return ids, [(0, len(text))] * len(ids)

    def _after_newline(self, text: str, plain: bool) -> list[int]:
        anchor, ids = self._encode("\n", plain), self._encode("\n" + text, plain)
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else self._encode(text, plain)

    def _encode(self, text: str, plain: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=plain)
