"""Encode rendered text to token ids and labels.

A text is encoded as a whole, and trained spans become labels by offset overlap. It is split, and
the pieces encoded separately, in three cases only: before a trained span whose first token would
merge with the text before it, so that prompts have the same ids as in inference; around control
tokens spelled in data, which become plain text; and with slow tokenizers, which have no offsets.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError, RowError
from tunewright.types import Rendered, Span
from tunewright_hf.templates.info import TemplateInfo
from tunewright_hf.tokenization.encoders import Encoder, FastEncoder, Offsets, SlowEncoder

if TYPE_CHECKING:
    from tunewright_hf.tokenization.fast_path import FastPath

__all__ = ["Encoded", "Tokeniser", "check_fit"]

_NO_LABEL = array("i", [-100])  # label of a token that is not trained
_MANY = 32  # rows from which the fast path is tried
_CONTEXT = 16  # characters on each side of a position that determine how tokens are split there


@dataclass(slots=True)
class Encoded:
    """One row of T tokens. labels: the ids that are trained, -100 elsewhere.

    Both are lists; in a batch they are array("i"), which convert to Arrow without a Python int per
    number.
    """

    input_ids: Any
    labels: Any
    loss_weights: list[float] | None = None  # T floats, 0 if not trained; None if all weights are 1
    split_tokens: int = (
        0  # starts of trained spans at which the text was split, usually within a token
    )


class Tokeniser:
    """Encodes rendered conversations with a transformers tokenizer, fast or slow.

    The template writes all special tokens; none are added, so a BOS is never doubled.
    """

    def __init__(self, tokenizer: Any, info: TemplateInfo) -> None:
        self._tokenizer = tokenizer
        self._added: set[str] = {token.content for token in tokenizer.added_tokens_decoder.values()}
        self._added |= {*info.control, *info.stop}
        self._joints: dict[str, bool] = {}
        self._encoder: Encoder = (
            FastEncoder(tokenizer) if tokenizer.is_fast else SlowEncoder(tokenizer)
        )

    @cached_property
    def _fast_path(self) -> "FastPath | None":
        from tunewright_hf.tokenization.fast_path import FastPath

        return FastPath.of(self._encoder.plain) if isinstance(self._encoder, FastEncoder) else None

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """For TemplateRequest.special_tokens: bos_token and the like under their names, all others
        under their own text, so that the template recognises them in data. Pass this same dict to
        all requests: results are cached by its identity."""
        named = {
            name: token
            for name, token in self._tokenizer.special_tokens_map.items()
            if isinstance(token, str)
        }
        special = [
            token.content
            for token in self._tokenizer.added_tokens_decoder.values()
            if token.special
        ]
        return {token: token for token in special if token not in named.values()} | named

    @cached_property
    def _adds_bos(self) -> bool:
        """Whether the tokenizer adds a BOS before each text."""
        bos = self._tokenizer.bos_token_id
        return bos is not None and self._tokenizer("a")["input_ids"][:1] == [bos]

    def spelled(self, rendered: Rendered) -> tuple[set[str], set[str]]:
        """Control tokens spelled in prompts, and in answers, that become plain text."""
        prompts, answers = (
            {rendered.text[span.start : span.end] for span in spans} & self._added
            for spans in (rendered.untrusted, rendered.answers)
        )
        return prompts, answers

    def encode(self, rendered: Rendered) -> Encoded:
        """Encode a row. Raises RowError if a control token spelled in data cannot be encoded as
        plain text."""
        return _listed(self.encode_batch([rendered])[0])

    def encode_batch(self, rows: Sequence[Rendered]) -> list[Encoded]:
        """Encode many rows at once, which is faster. The order is kept."""
        quick = (
            self._fast_path.encode(rows)
            if len(rows) >= _MANY and self._fast_path
            else [None] * len(rows)
        )
        rest = [row.text for row, found in zip(rows, quick, strict=True) if not found]
        whole = iter(self._encoder.with_offsets(rest) if rest else ())
        encoded = [
            _label(row, found[0], found[1], 0) if found else self._row(row, next(whole))
            for row, found in zip(rows, quick, strict=True)
        ]
        return [
            _with_media(each, row.media) if row.media else each
            for row, each in zip(rows, encoded, strict=True)
        ]

    def encode_prompt(self, rendered: Rendered) -> list[int]:
        """Ids of a prompt for inference, equal to those in training."""
        ids: list[int] = self.encode(rendered).input_ids
        return ids

    def encode_rest(self, rendered: Rendered, start: int) -> list[int]:
        """Ids of a text from a character on, after tokens that are known: they are not joined with
        it. Raises RowError as `encode` does."""
        rest = [Span(start, len(rendered.text))]
        encoded = self.encode(replace(rendered, trained=rest))
        return [label for label in encoded.labels if label != -100]

    def encode_text(self, text: str) -> Encoded:
        """Encode a document for pretraining, with the special tokens that the tokenizer adds, and
        EOS at its end. All of it is trained. Control tokens spelled in it are tokens, because such
        texts are often already rendered. A BOS or EOS in the text is not doubled."""
        return _listed(self.encode_text_batch([text])[0])

    def encode_text_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode many documents at once, which is faster. The order is kept."""
        end = self._tokenizer.eos_token_id
        rows = []
        for ids in self._tokenizer(list(texts), verbose=False, return_attention_mask=False)[
            "input_ids"
        ]:
            if self._adds_bos:
                while ids[:2] == [self._tokenizer.bos_token_id] * 2:
                    del ids[0]
            if end is not None and ids[-1:] != [end]:
                ids.append(end)
            row = array("i", ids)
            rows.append(Encoded(row, row[:]))
        return rows

    def _row(self, row: Rendered, whole: "tuple[list[int], Offsets] | None") -> Encoded:
        spelled = [
            s for s in (*row.untrusted, *row.answers) if row.text[s.start : s.end] in self._added
        ]
        if whole and not spelled:
            ids, offsets = whole
            cuts = []
        else:
            cuts = (
                [] if whole else [edge for span in row.trained for edge in (span.start, span.end)]
            )
            ids, offsets = self._pieces(row.text, spelled, cuts)
        split = 0
        while more := [
            s.start
            for s in row.trained
            if s.start not in cuts and self._joined(row.text, s.start, offsets)
        ]:
            cuts += more
            split += len(more)
            ids, offsets = self._pieces(row.text, spelled, cuts)
        edges = [
            edge
            for span in row.trained
            for edge in (bisect_left(offsets, (span.start,)), _after(offsets, span.end))
        ]
        return _label(row, array("i", ids), edges, split)

    def _joined(self, text: str, start: int, offsets: Offsets) -> bool:
        """Whether the text before `start` is encoded differently because of what follows."""
        following = bisect_left(offsets, (start,))
        if following and offsets[following - 1][1] > start:
            return True  # one token has characters of both
        # GPT-2 and others split white space depending on what follows. Prompts end alike, so few
        # cases are checked.
        left = text[max(0, start - _CONTEXT) : start]
        key = left + text[start : start + 1]
        if key not in self._joints:
            alone, _ = self._encoder.piece(left, False)
            within, _ = self._encoder.piece(left + text[start : start + _CONTEXT], False)
            self._joints[key] = within[: len(alone)] != alone
        return self._joints[key]

    def _pieces(
        self, text: str, spelled: list[Span], cuts: Iterable[int]
    ) -> tuple[list[int], Offsets]:
        plain = {span.start for span in spelled}
        edges = {0, len(text), *cuts, *plain, *(span.end for span in spelled)}
        ids: list[int] = []
        offsets: Offsets = []
        for start, end in pairwise(sorted(edges)):
            encode = self._plain if start in plain else self._encoder.piece
            more_ids, more_offsets = encode(text[start:end], start == 0)
            ids += more_ids
            offsets += [(start + first, start + last) for first, last in more_offsets]
        return ids, offsets

    def _plain(self, text: str, first: bool) -> tuple[list[int], Offsets]:
        """Encode a control token as plain text. If it is also in the vocabulary, its first
        character is encoded separately."""
        forbidden = self._tokenizer.convert_tokens_to_ids(text)
        ids, offsets = self._encoder.piece(text, first, plain=True)
        if forbidden in ids:
            ids, offsets = self._encoder.piece(text[:1], first, plain=True)
            rest, rest_offsets = self._encoder.piece(text[1:], False, plain=True)
            ids, offsets = (
                ids + rest,
                offsets + [(start + 1, end + 1) for start, end in rest_offsets],
            )
        if forbidden in ids:
            raise RowError(
                f"the text spells {text!r}, and this tokenizer can only write it as "
                "the control token"
            )
        return ids, offsets


def _after(offsets: Offsets, end: int) -> int:
    """Index of the first token that is not within the text up to `end`."""
    place = bisect_left(offsets, (end,))
    while place and offsets[place - 1][1] > end:  # a token with characters on both sides
        place -= 1
    return place


def check_fit(tokenizer: Any, info: TemplateInfo, place: str) -> None:
    """Raise RecipeError if the template's control tokens are not single tokens of the tokenizer,
    or if it ends answers with an EOS that the tokenizer lacks. place: of the template in the
    recipe."""
    added = tokenizer.added_tokens_encoder
    missing = [
        token
        for token in dict.fromkeys(info.control + info.stop)
        if token not in added and len(tokenizer.encode(token, add_special_tokens=False)) != 1
    ]
    hint = (
        "take the template of the model's family, or one that needs no tokens of its "
        "own, such as default"
    )
    if missing:
        raise RecipeError(
            f"the tokenizer has no token for {', '.join(missing)}", place=place, hint=hint
        )
    if not info.stop and tokenizer.eos_token is None:
        problem = "the template ends answers with the tokenizer's EOS token, which it does not have"
        raise RecipeError(problem, place=place, hint=hint)


def _with_media(row: Encoded, media: Sequence[tuple[int, Sequence[int]]]) -> Encoded:
    """The row with the ids of each medium in place of its placeholder. They are not trained. media:
    as in `Rendered.media`."""
    ids, labels, weights, at = array("i"), array("i"), list[float](), 0
    own_weights = row.loss_weights or []
    for placeholder, expansion in media:
        place = row.input_ids.index(placeholder, at)
        ids += row.input_ids[at:place] + array("i", expansion)
        labels += row.labels[at:place] + _NO_LABEL * len(expansion)
        weights += own_weights[at:place] + [0.0] * len(expansion)
        at = place + 1
    found = weights + own_weights[at:] if row.loss_weights else None
    return Encoded(ids + row.input_ids[at:], labels + row.labels[at:], found, row.split_tokens)


def _listed(row: Encoded) -> Encoded:
    return replace(row, input_ids=row.input_ids.tolist(), labels=row.labels.tolist())


def _label(row: Rendered, ids: "array[int]", edges: list[int], split_tokens: int) -> Encoded:
    """Label a row. edges: for each trained span the index of its first token, and of the first one
    after it."""
    labels = _NO_LABEL * len(ids)
    weights = [0.0] * len(ids) if any(span.weight != 1 for span in row.trained) else None
    for span, first, end in zip(row.trained, edges[::2], edges[1::2], strict=True):
        labels[first:end] = ids[first:end]
        if weights:
            weights[first:end] = [span.weight] * (end - first)
    return Encoded(ids, labels, weights, split_tokens)
