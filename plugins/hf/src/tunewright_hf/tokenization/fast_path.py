"""Fast path from rendered texts to ids, for byte-level tokenizers: pieces between added tokens are
encoded once.

Template text and system prompts occur in every row of a batch, and are encoded once for all of
them.
"""

import re
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tunewright.types import Rendered
from tunewright_hf.tokenization.byte_level_bpe import ByteLevelBpe, packed

_SIZE = array("i").itemsize  # bytes per id
_LONGEST = (
    # characters before a trained span, back to the added token before it, that are encoded
    # separately
    64
)

#: of a row: its parts (text, token, text, …), and for each edge of a trained span the index of its
#: part, and that part's text before it
_Plan = tuple[list[str], list[tuple[int, str]]]


class FastPath:
    """Returns ids, and the positions in them at which trained spans start and end."""

    def __init__(self, words: ByteLevelBpe, added: dict[str, int]) -> None:
        self._words = words
        self._added = {token: packed([number]) for token, number in added.items()}
        longest_first = sorted(added, key=len, reverse=True)  # as the tokenizer matches them
        self._split = (
            re.compile(f"({'|'.join(map(re.escape, longest_first))})").split if added else None
        )

    @classmethod
    def of(cls, tokenizer: Any) -> "FastPath | None":
        """Create the fast path; None if the tokenizer is of another type. tokenizer: a
        tokenizers.Tokenizer as for `ByteLevelBpe.of`."""
        words = ByteLevelBpe.of(tokenizer)
        added = {
            token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()
        }
        return cls(words, added) if words else None

    def encode(self, rows: Sequence[Rendered]) -> "list[tuple[array[int], list[int]] | None]":
        """Encode rows. None for a row that needs the general path: data spells a control token, or
        a span does not start between two tokens that would be the same without it."""
        plans = [self._plan(row) for row in rows]
        pieces: set[str] = set()
        for plan in plans:
            if plan:
                pieces.update(plan[0][::2])
                pieces.update(before for _, before in plan[1])
        todo = list(pieces)
        table = dict(zip(todo, self._words.encode(todo), strict=True)) | self._added
        return [self._assembled(plan, table) if plan else None for plan in plans]

    def _plan(self, row: Rendered) -> _Plan | None:
        if row.untrusted or row.answers:
            return None
        parts = self._split(row.text) if self._split else [row.text]
        edges = [edge for span in row.trained for edge in (span.start, span.end)]
        cuts: list[tuple[int, str]] = []
        start, wanted = 0, 0
        for number, part in enumerate(parts):
            end = start + len(part)
            while wanted < len(edges) and edges[wanted] < end:
                if not 0 <= edges[wanted] - start <= _LONGEST:
                    return None
                cuts.append((number, part[: edges[wanted] - start]))
                wanted += 1
            start = end
        cuts += [(len(parts), "")] * (len(edges) - wanted)  # at the end of the text
        return parts, cuts

    def _assembled(
        self, plan: _Plan, table: dict[str, bytes]
    ) -> "tuple[array[int], list[int]] | None":
        parts, cuts = plan
        of_parts = [table[part] for part in parts]
        before = [0, *accumulate(map(len, of_parts))]
        places = []
        for number, text in cuts:
            own = table[text]
            if own and not of_parts[number].startswith(own):
                return None
            places.append((before[number] + len(own)) // _SIZE)
        return array("i", b"".join(of_parts)), places
