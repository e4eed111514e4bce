"""Metrics of texts. In scripts without spaces between words, each character counts as a word."""

import re
import string
from collections import Counter
from typing import Any

#: letters of scripts without spaces: Thai, Lao, Myanmar, Khmer, kana, Han
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "，。！？、；：“”‘’（）《》【】…—·")
_ROUGE = ("rouge1", "rouge2", "rougeL")


def words(text: str) -> list[str]:
    """Lower-case words; single characters in scripts without spaces."""
    return _WORDS.findall(text.lower())


def normalised(text: str) -> str:
    """The text without case, punctuation, English articles and extra white space."""
    plain = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(plain.split())


def word_f1(said: str, wanted: str) -> float:
    """F1 of the words that both texts have, each as often as it occurs."""
    ours, theirs = words(normalised(said)), words(normalised(wanted))
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * shared / (len(ours) + len(theirs))


class _Words:
    """Tokenizer of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def rouge(said: str, wanted: str) -> dict[str, float]:
    """F1 of unigrams, bigrams and the longest common subsequence, by rouge-score."""
    from rouge_score.rouge_scorer import RougeScorer

    scores = RougeScorer(list(_ROUGE), tokenizer=_Words()).score(wanted, said)
    return {name: scores[name].fmeasure for name in _ROUGE}


class CorpusMetrics:
    """BLEU and chrF of all texts together, by sacrebleu, where they are asked for."""

    def __init__(self, metrics: list[str]) -> None:
        self._metrics = metrics

    def __call__(self, texts: list[tuple[str, str]]) -> dict[str, float]:
        """texts: (said, wanted)."""
        if not {"bleu", "chrf"} & set(self._metrics):
            return {}
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        said, wanted = [said for said, _ in texts], [[wanted for _, wanted in texts]]
        found: dict[str, Any] = {}
        if "bleu" in self._metrics:
            found["bleu"] = BLEU(tokenize=tokenizer(wanted[0])).corpus_score(said, wanted).score
        if "chrf" in self._metrics:
            found["chrf"] = CHRF().corpus_score(said, wanted).score
        return found


def tokenizer(texts: list[str]) -> str:
    """sacrebleu's tokenizer for texts: `zh` where Han is more than a third of the words."""
    total = sum(len(words(text)) for text in texts)
    han = sum(len(_HAN.findall(text)) for text in texts)
    return "zh" if 3 * han > total else "13a"
