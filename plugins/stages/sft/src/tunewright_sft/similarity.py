"""Text similarity metrics, in percent."""

from collections import Counter
from collections.abc import Sequence

import regex  # type: ignore[import-untyped]
from sacrebleu.metrics.bleu import BLEU

# a word, a punctuation mark, or a character in scripts without spaces between words
_TOKEN = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
    r"|[\w--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]+|[^\w\s]",
    regex.V1,
)


def tokens(text: str) -> list[str]:
    found: list[str] = _TOKEN.findall(text)
    return found


class Similarity:
    """Metrics of a text against a reference: exact match, ignoring leading and trailing white
    space; ROUGE F1 (Lin 2004) of unigrams, bigrams and the longest common subsequence of words;
    BLEU (Papineni et al. 2002) up to 4-grams, by sacrebleu, smoothed, with effective order for
    short texts."""

    def __init__(self) -> None:
        self._bleu = BLEU(tokenize="none", effective_order=True)

    def __call__(self, text: str, wanted: str) -> dict[str, float]:
        one, other = tokens(text), tokens(wanted)
        return {
            "exact_match": 100.0 * (text.strip() == wanted.strip()),
            "rouge-1": rouge_n(one, other, 1),
            "rouge-2": rouge_n(one, other, 2),
            "rouge-l": _f1(common_subsequence(one, other), len(one), len(other)),
            "bleu-4": min(100.0, self._bleu.sentence_score(" ".join(one), [" ".join(other)]).score),
        }


def rouge_n(one: Sequence[str], other: Sequence[str], size: int) -> float:
    """F1 of n-grams of `size` words; 0 if a text has none."""
    runs = [
        Counter(zip(*(words[start:] for start in range(size)), strict=False))
        for words in (one, other)
    ]
    return _f1((runs[0] & runs[1]).total(), runs[0].total(), runs[1].total())


def _f1(shared: int, one: int, other: int) -> float:
    return 200.0 * shared / (one + other) if shared else 0.0


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence. Bit-parallel: a row of the usual table is one
    integer whose 1 bits are increments (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    row = 0
    for word in other:
        reached = row | places.get(word, 0)
        row = reached & ~(reached - (row << 1 | 1))
    return row.bit_count()
