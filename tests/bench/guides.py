"""Guided decoding at vocabularies of 1,000, 32,000 and 150,000 tokens, on a CPU.

    python tests/bench/guides.py [--vocabulary 1000 32000 150000]

The vocabularies are synthetic: all bytes, and pieces of words, numbers, punctuation and Chinese, as
many as asked for. Answers are drawn among the allowed tokens, each with the same probability, up to
200 tokens. Prints for each the seconds to make a compiler and to compile a schema for the first
time, and the microseconds a token that the mask takes: filled, and applied to the logits; with
llguidance, if it is installed, beside xgrammar.
"""

import argparse
import itertools
import json
import random
import time
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SCHEMAS: dict[str, dict[str, Any]] = {
    "call": {
        "type": "object",
        "properties": {
            "name": {"enum": ["weather", "time"]},
            "arguments": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    },
    "any object": {"type": "object"},
    "list": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 20},
}


def pieces(count: int) -> list[str]:
    """Distinct texts such as those of byte-level vocabularies."""
    draw = random.Random(0)
    syllables = [
        "".join(each) for each in itertools.product("bcdfglmnprst", "aeiou", ["", "n", "s"])
    ]
    found: dict[str, None] = {}
    while len(found) < count:
        kind = draw.random()
        if kind < 0.75:
            word = "".join(draw.choices(syllables, k=draw.randint(1, 3)))
            found[draw.choice(["", " "]) + draw.choice([word, word.title(), word.upper()])] = None
        elif kind < 0.8:
            found[str(draw.randint(0, 99_999))] = None
        elif kind < 0.9:
            found["".join(draw.choices("{}[]():;,.\"'=<>/\\ \n\t", k=draw.randint(2, 5)))] = None
        else:
            found["".join(chr(draw.randint(0x4E00, 0x9FA5)) for _ in range(draw.randint(1, 3)))] = (
                None
            )
    return list(found)


def tokenizer_of(count: int) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spell = dict(zip(sorted(range(256), key=_spelled), alphabet, strict=True))
    words = alphabet + [
        "".join(spell[byte] for byte in piece.encode()) for piece in pieces(count - 257)
    ]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def _spelled(byte: int) -> str:
    from tunewright_hf.inference.token_bytes import _BYTES

    return next(letter for letter, value in _BYTES.items() if value == byte)


def timed(times: list[float], work: Any, *arguments: Any) -> Any:
    began = time.perf_counter()
    result = work(*arguments)
    times.append(time.perf_counter() - began)
    return result


class Xgrammar:
    def __init__(self, tokenizer: Any, size: int) -> None:
        import xgrammar

        self.x, self.size = xgrammar, size
        info = xgrammar.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=size, stop_token_ids=[tokenizer.eos_token_id]
        )
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1)

    def compile(self, schema: str) -> Any:
        return self.compiler.compile_json_schema(schema, any_whitespace=False)

    def start(self, compiled: Any) -> None:
        self.matcher = self.x.GrammarMatcher(compiled)
        self.allowed = self.x.allocate_token_bitmask(1, self.size)

    def mask(self, logits: torch.Tensor) -> None:
        self.matcher.fill_next_token_bitmask(self.allowed)
        self.x.apply_token_bitmask_inplace(logits[None], self.allowed)

    def accept(self, token: int) -> bool:
        self.matcher.accept_token(token)
        return not self.matcher.is_terminated()


class Llguidance:
    def __init__(self, tokenizer: Any, size: int) -> None:
        import llguidance
        import llguidance.hf
        import llguidance.numpy

        self.x, self.size = llguidance, size
        self.tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size)

    def compile(self, schema: str) -> Any:
        how = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        grammar = self.x.LLMatcher.grammar_from_json_schema(schema, overrides=how)
        return self.x.LLMatcher(self.tokenizer, grammar)

    def start(self, compiled: Any) -> None:
        self.matcher = compiled.deep_copy()
        self.allowed = self.x.numpy.allocate_token_bitmask(1, self.size)

    def mask(self, logits: torch.Tensor) -> None:
        self.x.numpy.fill_next_token_bitmask(self.matcher, self.allowed, 0)
        self.x.numpy.apply_token_bitmask_inplace(logits[None].numpy(), self.allowed)

    def accept(self, token: int) -> bool:
        self.matcher.consume_token(token)
        return not self.matcher.is_stopped()


def measure(kind: type[Any], size: int) -> None:
    tokenizer, made = tokenizer_of(size), []  # type: ignore[var-annotated]
    size = len(tokenizer)
    guides = timed(made, kind, tokenizer, size)
    for name, schema in SCHEMAS.items():
        compiling: list[float] = []
        masks: list[float] = []
        compiled = timed(compiling, guides.compile, json.dumps(schema))
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            guides.start(compiled)
            for _ in range(40):
                logits = torch.zeros(size)
                timed(masks, guides.mask, logits)
                token = int(torch.multinomial(logits.softmax(0), 1, generator=generator))
                if not guides.accept(token):
                    break
        masks.sort()
        middle, most = masks[len(masks) // 2], masks[int(len(masks) * 0.99)]
        print(
            f"{kind.__name__.lower():10} {size:7,} {name:10} compiler {made[0]:6.2f} s, "
            f"schema {compiling[0]:6.3f} s, mask {1e6 * middle:6.0f} us, p99 {1e6 * most:6.0f} us"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", nargs="+", type=int, default=[1000, 32_000, 150_000])
    torch.set_num_threads(1)
    for count in parser.parse_args().vocabulary:
        measure(Xgrammar, count)
        try:
            measure(Llguidance, count)
        except ImportError:
            print("llguidance is not installed")
