"""Synthetic data for data.py, and a tokenizer for it; the same on every machine."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

VOCABULARY = 32_000
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| "
    r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]


CONSONANTS, VOWELS = "b c d f g h k l m n p r s t v w st tr pl", "a e i o u ai ou"


class Writer:
    """Generates texts of made-up words, with sentences, numbers, lists and code."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        made = random.Random(1)  # the same words for all seeds
        parts = [a + b for a in CONSONANTS.split() for b in VOWELS.split()]
        self.words = [
            "".join(made.choices(parts, k=made.choice((1, 2, 2, 3, 3, 4)))) for _ in range(40_000)
        ]
        self.weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(self.words))))

    def text(self, words: int) -> str:
        rnd = self.random
        found = rnd.choices(self.words, cum_weights=self.weights, k=max(1, words))
        for place in range(0, len(found), 11):
            ending = rnd.choice(
                (",", ".", ".\n", "?", ": 42", " (1,234)", "\n- ", ";", "\n\n```x = f(y)```\n")
            )
            found[place] = (
                found[place].capitalize() if rnd.random() < 0.3 else found[place] + ending
            )
        return " ".join(found)

    def length(self, mean: float) -> int:
        return min(4 * int(mean), max(2, int(self.random.lognormvariate(0, 0.8) * mean * 0.73)))

    def alpaca(self) -> dict[str, Any]:
        record = {"instruction": self.text(self.length(21)), "output": self.text(self.length(124))}
        return record | (
            {"input": self.text(self.length(40))} if self.random.random() < 0.4 else {"input": ""}
        )

    def chats(self) -> dict[str, Any]:
        turns = self.random.randint(2, 6)
        messages = [{"role": "system", "content": self.words[7] + " helpful assistant."}]
        for _ in range(turns):
            messages.append({"role": "user", "content": self.text(self.length(22))})
            messages.append({"role": "assistant", "content": self.text(self.length(65))})
        return {"messages": messages}


def write_data(path: Path, kind: str, samples: int, times: int) -> None:
    if not path.exists():
        writer = Writer()
        lines = [json.dumps(getattr(writer, kind)()) + "\n" for _ in range(samples)]
        with path.open("w", encoding="utf-8") as file:
            for _ in range(times):
                file.writelines(lines)


def train_tokenizer(folder: Path) -> None:
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    path = folder / "tokenizer.json"
    if path.exists():
        return
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False
    )
    writer = Writer(99)
    tokenizer.train_from_iterator((writer.text(200) for _ in range(15_000)), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in WORDS])
    tokenizer.save(str(path))
