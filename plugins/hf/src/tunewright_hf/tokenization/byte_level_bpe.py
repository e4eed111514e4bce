"""Byte-level BPE with a word table: the tokenizer's own ids at a fraction of its time.

A byte-level tokenizer splits text into words with a regular expression, and encodes each word
alone. Few distinct words make up most text: here Python's `re` splits and ids are looked up; only
words not seen before go through the tokenizer, and text in scripts that are not covered. Used only
if the tokenizer is of this type, and if both split a sample of all covered characters in the same
way.
"""

import json
import re
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

LIMIT = 100_000  # words in the table, about 30 MB
_LONGEST = 64  # longest word in the table, in characters

# Latin letters, marks, symbols and spaces of Western texts. Other characters may change under NFC,
# or with the Unicode version.
_RANGES = ((0x00, 0x24F), (0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF))
_FOLDED = "\u0130\u0131\u017f"  # match i or s if case is ignored, or not, depending on the library


def _covered() -> list[str]:
    every = [chr(code) for first, last in _RANGES for code in range(first, last + 1)]
    return [c for c in every if c not in _FOLDED and unicodedata.normalize("NFC", c) == c]


def _ranges(characters: Sequence[str]) -> str:
    """Content of a character class; characters ascend."""
    ranges: list[list[int]] = []
    for code in map(ord, characters):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)


_COVERED = _covered()
_is_covered = re.compile(f"[{_ranges(_COVERED)}]*+").fullmatch
_CATEGORY = re.compile(r"\\p\{(\w+)\}")
_SPACE = _ranges([c for c in _COVERED if c.isspace() and c not in "\x1c\x1d\x1e\x1f"])
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class ByteLevelBpe:
    """Encodes pieces of text without added tokens. Created by `of`, if the tokenizer is
    suitable."""

    def __init__(self, tokenizer: Tokenizer, cut: Callable[[str], list[str]]) -> None:
        self._tokenizer, self._cut = tokenizer, cut
        self._known: dict[str, bytes] = {}

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "ByteLevelBpe | None":
        """Create an encoder; None if the tokenizer is of another type. tokenizer: without
        truncation, padding and post-processor."""
        state = json.loads(tokenizer.to_str())
        pattern = _pattern(state)
        if pattern is None or not _added_tokens_stand_alone(state):
            return None
        try:
            cut = re.compile(_python(pattern)).findall
        except (re.error, KeyError):  # syntax or a category that is not supported here
            return None
        return cls(tokenizer, cut) if _agree(tokenizer, cut) else None

    def encode(self, pieces: Sequence[str]) -> list[bytes]:
        """Ids of each piece, four bytes each, as in array("i"): bytes are joined much faster than
        lists."""
        if len(self._known) > LIMIT:
            self._known = {}
        words = [
            self._cut(piece) if piece.isascii() or _is_covered(piece) else [piece]
            for piece in pieces
        ]
        missing = list(set().union(*words).difference(self._known))
        found = self._tokenizer.encode_batch_fast(missing, add_special_tokens=False)
        self._known.update(
            (word, packed(encoding.ids)) for word, encoding in zip(missing, found, strict=True)
        )
        join, look_up = b"".join, self._known.__getitem__
        ids = [join(map(look_up, of_piece)) for of_piece in words]
        for word in missing:
            if len(word) > _LONGEST:
                del self._known[word]
        return ids


def packed(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def _pattern(state: dict[str, Any]) -> str | None:
    """The regular expression that splits words, if nothing else but the model affects ids."""
    normalizer, model, before = state["normalizer"], state["model"], state["pre_tokenizer"] or {}
    if (
        model["type"] != "BPE"
        or model.get("dropout")
        or (normalizer and normalizer["type"] != "NFC")
    ):
        return None
    steps = before.get("pretokenizers", [before])
    bytes_ = steps[-1]
    if bytes_.get("type") != "ByteLevel" or bytes_["add_prefix_space"]:
        return None
    if len(steps) == 1:
        return _GPT2 if bytes_["use_regex"] else None
    split = steps[0]
    plain = (
        len(steps) == 2
        and not bytes_["use_regex"]
        and split["type"] == "Split"
        and not split["invert"]
    )
    return split["pattern"].get("Regex") if plain and split["behavior"] == "Isolated" else None


def _added_tokens_stand_alone(state: dict[str, Any]) -> bool:
    """Whether text between two added tokens is encoded as it would be alone, and added tokens are
    matched literally."""
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    return not any(token[flag] for token in state["added_tokens"] for flag in flags)


def _python(pattern: str) -> str:
    """Translate the pattern, for covered text, to `re`, which has no Unicode categories."""

    def category(match: re.Match[str]) -> str:
        found = [c for c in _COVERED if unicodedata.category(c).startswith(match[1])]
        if _inside(match.string, match.start()):
            return _ranges(found)
        if not found:
            raise KeyError(match[0])
        return f"[{_ranges(found)}]"

    written = _CATEGORY.sub(category, pattern)
    return re.sub(r"\\[sS]", lambda m: _space(m[0], _inside(m.string, m.start())), written)


def _space(written: str, inside: bool) -> str:
    if inside:
        if written == r"\S":
            raise KeyError(written)
        return _SPACE
    return f"[{_SPACE}]" if written == r"\s" else f"[^{_SPACE}]"


def _inside(pattern: str, place: int) -> bool:
    """Whether a character class is open at this position."""
    before = re.sub(r"\\.", "", pattern[:place])
    return before.rfind("[") > before.rfind("]")


def _agree(tokenizer: Tokenizer, cut: Callable[[str], list[str]]) -> bool:
    """Whether both split every covered character in the same way, with every type of neighbour, and
    every word alone."""
    beside = (
        "a",
        "1",
        " ",
        "'",
        ".",
        "\n",
        "B",
        "12345",
        "  ",
        "\r\n",
        "\t ",
        "'s",
        "'LL",
        "...",
        "_",
        "é",
        "—",
        "\xa0",
    )
    pairs = [(left, right) for left in beside for right in ("a", " ", "\n.")]
    text = "".join(
        f"{left}{c}{right}{c}{c}{left}"
        for c in _COVERED
        for left, right in (pairs if c.isascii() else pairs[:18])
    )
    words = cut(text)
    pre_tokenizer: Any = tokenizer.pre_tokenizer
    edges = [end for _, (_, end) in pre_tokenizer.pre_tokenize_str(text)]
    length, own = 0, []
    for word in words:
        length += len(word)
        own.append(length)
    return edges == own and all(cut(word) == [word] for word in set(words))
