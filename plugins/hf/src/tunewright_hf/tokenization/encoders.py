"""Encoders for pieces of text, with fast and slow tokenizers."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A piece from the middle of a text is encoded after one of these, whose tokens are then dropped:
# alone, many tokenizers would treat it as the start of a text and add a space. One merges with
# letters, one with newlines.
_ANCHORS = ("\n", "a", ".")

Offsets = list[tuple[int, int]]  # of each token: characters [start, end), in order


class Encoder(Protocol):
    def with_offsets(self, texts: list[str]) -> "Iterable[tuple[list[int], Offsets] | None]":
        """Ids and offsets of each text; None if offsets are not available."""

    def piece(self, text: str, first: bool, plain: bool = False) -> tuple[list[int], Offsets]:
        """Encode a piece. first: the text begins with it; plain: added tokens in it are plain
        text."""


class FastEncoder:
    """Uses the tokenizers library's encoder, in a copy, because calls by others change its state.

    plain: a copy that adds nothing and removes nothing
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        self._json = tokenizer.backend_tokenizer.to_str()
        self.plain = Tokenizer.from_str(self._json)
        self.plain.no_truncation()
        self.plain.no_padding()
        self.plain.post_processor = (
            None  # adds nothing here, but removes white space from the offsets
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

    def with_offsets(self, texts: list[str]) -> Iterator[tuple[list[int], Offsets]]:
        for encoded in self.plain.encode_batch(texts, add_special_tokens=False):
            yield encoded.ids, encoded.offsets  # one row at a time: a batch has millions of pairs

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
    """For tokenizers in Python, which have no offsets: all ids of a piece get the offsets of the
    piece."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def with_offsets(self, texts: list[str]) -> list[None]:
        return [None] * len(texts)

    def piece(self, text: str, first: bool, plain: bool = False) -> tuple[list[int], Offsets]:
        ids = self._encode(text, plain) if first else self._after_newline(text, plain)
        return ids, [(0, len(text))] * len(ids)

    def _after_newline(self, text: str, plain: bool) -> list[int]:
        anchor, ids = self._encode("\n", plain), self._encode("\n" + text, plain)
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else self._encode(text, plain)

    def _encode(self, text: str, plain: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=plain)
