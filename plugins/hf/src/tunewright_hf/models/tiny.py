"""Tiny twins: a family's own architecture and special tokens, made offline, the same on every
machine.

A twin's tokenizer is trained on tiny_corpus.txt when it is first asked for, which takes some 50 ms.
Any text can be encoded and comes back as it was, but for what the family itself changes.
"""

import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from tunewright.types import LoadRequest
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.loading import HEADS

__all__ = ["TinyModelSpec", "tokenizer"]

VOCABULARY = 1000  # tokens, without the special ones


@dataclass(frozen=True)
class TinyModelSpec:
    """One entry of a family's tiny.toml."""

    name: str
    model_type: str
    template: str
    style: Literal[
        "byte_level", "metaspace"
    ]  # as GPT-2 and its heirs, or as sentencepiece with bytes to fall back on
    eos: str
    composed: bool = False  # byte_level: text is brought into Unicode's composed form (NFC) first
    pattern: str = ""  # byte_level: the regular expression of the family's pre-tokenizer
    prefix: bool = True  # metaspace: a text begins with a space of its own
    bos: str | None = None
    pad: str | None = None
    unk: str | None = None
    add_bos: bool = False  # the tokenizer begins every text with BOS
    special: tuple[str, ...] = ()  # control tokens, in the order of their ids
    words: tuple[str, ...] = ()  # tokens of their own that are no control tokens, such as <think>
    config: Mapping[str, Any] = field(default_factory=dict)  # fields of the model's config
    without: tuple[str, ...] = ()  # fields of `config` below that the model's config does not take


def tokenizer(twin: TinyModelSpec) -> PreTrainedTokenizerFast:
    """A new tokenizer with `VOCABULARY` tokens and the twin's own; a change to it changes no
    other."""
    backend = Tokenizer.from_str(_trained(twin.style, twin.pattern))
    if twin.composed:
        backend.normalizer = normalizers.NFC()
    if twin.style == "metaspace" and not twin.prefix:
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in twin.special]
    )
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in twin.words])
    if twin.add_bos:
        assert twin.bos is not None
        backend.post_processor = processors.TemplateProcessing(
            single=f"{twin.bos} $A",
            pair=f"{twin.bos} $A {twin.bos}:1 $B:1",
            special_tokens=[(twin.bos, backend.token_to_id(twin.bos))],
        )
    named = {
        "bos_token": twin.bos,
        "eos_token": twin.eos,
        "pad_token": twin.pad,
        "unk_token": twin.unk,
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=[token for token in twin.special if token not in named.values()],
        clean_up_tokenization_spaces=False,
        **named,
    )


def config(twin: TinyModelSpec, tokenizer: Any, hidden_size: int, layers: int) -> Any:
    """The model's config: four heads, two of them for keys and values, a vocabulary as large as the
    tokenizer's."""
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden_size // 4,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    taken = {name: value for name, value in fields.items() if name not in twin.without}
    return CONFIG_MAPPING[twin.model_type](**taken | dict(twin.config))


def model(config: Any, request: LoadRequest, device: torch.device) -> Any:
    """A model with random weights that depend on `request.seed` alone, in float32 where no dtype is
    named."""
    if request.head != "causal_lm":
        config.num_labels = 1
    dtype = getattr(torch, request.dtype) if request.dtype not in (None, "auto") else torch.float32
    arguments = {"attn_implementation": request.attention} if request.attention else {}
    with seeded(
        request.seed, torch.device("cpu")
    ):  # made on the CPU, so that all devices begin alike
        made = HEADS[request.head].from_config(config, dtype=dtype, **arguments)
    if request.quantization is None:
        return made.to(device)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:  # weights are quantized while they are loaded
        made.save_pretrained(folder)
        return HEADS[request.head].from_pretrained(
            folder,
            quantization_config=request.quantization,
            dtype=dtype,
            device_map={"": device},
            **arguments,
        )


# ---- tokenizers ----------------------------------------------------------------------------------


def _corpus() -> list[str]:
    return (
        resources.files("tunewright_hf.models")
        .joinpath("tiny_corpus.txt")
        .read_text("utf-8")
        .splitlines(keepends=True)
    )


@functools.cache
def _trained(style: str, pattern: str) -> str:
    """A trained tokenizer without special tokens, as JSON."""
    return (_byte_level(pattern) if style == "byte_level" else _metaspace()).to_str()


def _byte_level(pattern: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, in_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _metaspace() -> Tokenizer:
    """Words begin with ▁ in place of their space, as does the text; rare characters fall back on
    bytes."""
    specials = ["<unk>", "<s>", "</s>"]
    in_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="never"
    )  # no piece spans two words
    # Other characters fall back on bytes. Were the trainer to choose which, it would choose others
    # each time.
    alphabet = ["▁", *(chr(code) for code in range(33, 127))]
    size = VOCABULARY - len(in_bytes) - len(specials)
    learner.train_from_iterator(
        (f" {line.rstrip()}" for line in _corpus()),
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]  # the library tells its merges in no other way
    pieces = [*specials, *in_bytes, *sorted(learned["vocab"], key=learned["vocab"].get)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [(left, right) for left, right in learned["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer
