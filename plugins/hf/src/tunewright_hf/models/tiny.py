"""Tiny twins: small models with a family's architecture and special tokens, created offline, the
same on every machine.

A twin's tokenizer is trained on tiny_corpus.txt at first use, which takes about 50 ms. It can
encode any text, and decodes to the same text except for changes that the family itself makes.
"""

import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
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
from tunewright_hf.models import native_loading
from tunewright_hf.models.dequantized import forget
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.heads import HEADS, auto_class, set_outputs
from tunewright_hf.models.loading import load_weights, quiet, read_config
from tunewright_hf.models.native import MARK
from tunewright_hf.models.native_export import write_new
from tunewright_hf.models.quantizers import AfterLoading, StoredQuantization

__all__ = ["TinyModelSpec", "tokenizer"]

VOCABULARY = 1000  # tokens, without special ones


@dataclass(frozen=True)
class TinyModelSpec:
    """One entry of a family's tiny.toml."""

    name: str
    model_type: str
    template: str
    # byte_level like GPT-2, metaspace like sentencepiece with byte fallback
    style: Literal["byte_level", "metaspace"]
    eos: str
    composed: bool = False  # byte_level: text is normalised to NFC first
    pattern: str = ""  # byte_level: regular expression of the family's pre-tokenizer
    prefix: bool = True  # metaspace: add a space before the text
    bos: str | None = None
    pad: str | None = None
    unk: str | None = None
    add_bos: bool = False  # the tokenizer adds a BOS to every text
    special: tuple[str, ...] = ()  # special tokens, in the order of their ids
    words: tuple[str, ...] = ()  # added tokens that are not special, such as <think>
    config: Mapping[str, Any] = field(default_factory=dict)  # fields of the model's config
    without: tuple[str, ...] = ()  # fields set by `config` below that the model's config lacks
    names: Mapping[str, str] = field(default_factory=dict)  # the config's own names of fields
    template_options: Mapping[str, Any] = field(default_factory=dict)
    # of a model with media, whose `config` is its text_config:
    #: further fields of the whole config; "hidden_size" is the language model's
    parts: Mapping[str, Any] = field(default_factory=dict)
    token_ids: Mapping[str, str] = field(default_factory=dict)  # config field → token with that id
    tokens: Mapping[str, str] = field(default_factory=dict)  # tokenizer attribute → token
    #: class of transformers and its arguments; a table with `class` is an argument made likewise
    processor: Mapping[str, Any] = field(default_factory=dict)


def tokenizer(twin: TinyModelSpec) -> PreTrainedTokenizerFast:
    """Create a tokenizer with `VOCABULARY` tokens and the twin's own. Each call returns a new
    object."""
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
        extra_special_tokens=dict(twin.tokens)
        or [token for token in twin.special if token not in named.values()],
        clean_up_tokenization_spaces=False,
        **named,
    )


def config(twin: TinyModelSpec, tokenizer: Any, hidden_size: int, layers: int) -> Any:
    """The model's config: four heads, two key-value heads, and the tokenizer's vocabulary size. For
    an architecture whose code is on the hub only: that of its native class, which holds the
    original one."""
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
    taken = {
        twin.names.get(name, name): value
        for name, value in fields.items()
        if name not in twin.without
    }
    taken |= twin.config
    if twin.parts:
        from tunewright_hf.models.tiny_media import composed_config

        return composed_config(twin, tokenizer, taken, hidden_size)
    if twin.model_type in CONFIG_MAPPING:
        return CONFIG_MAPPING[twin.model_type](**taken)
    original = {"model_type": twin.model_type, **taken}
    native = native_loading.find(original, Path("tiny.toml"))
    assert native is not None, f"no native class for {twin.model_type}"
    return CONFIG_MAPPING[native.config["model_type"]].from_dict(native.config)


def model(config: Any, request: LoadRequest, device: torch.device) -> Any:
    """Create a model with random weights that depend on `request.seed` only; float32 unless a dtype
    is given."""
    if isinstance(request.quantization, AfterLoading):
        request.quantization = None
    if isinstance(getattr(config, MARK, None), dict):
        asked = request.quantization
        if not isinstance(asked, StoredQuantization):
            return _through_its_files(config, request, device)
        request.quantization = None
        made = _through_its_files(config, request, torch.device("cpu"))
        forget(made)  # it is saved as the native class has it
        request.quantization = asked
    else:
        for edit in request.config_edits:
            edit(config)
        made = _random(config, request)
    if request.quantization is None:
        return made.to(device)
    dtype, arguments = made.dtype, _attention(request)
    disable_progress_bar()
    # weights can only be quantized while they are loaded
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        if isinstance(request.quantization, StoredQuantization):
            _write_quantized(request.quantization, Path(folder))
        else:
            arguments["quantization_config"] = request.quantization
        return auto_class(request, config).from_pretrained(
            folder, dtype=dtype, device_map={"": device}, **arguments
        )


def _attention(request: LoadRequest) -> dict[str, Any]:
    return {"attn_implementation": request.attention} if request.attention else {}


def _random(config: Any, request: LoadRequest) -> Any:
    set_outputs(config, request)
    dtype = getattr(torch, request.dtype) if request.dtype not in (None, "auto") else torch.float32
    # created on the CPU, so that all devices start with the same weights
    with seeded(request.seed, torch.device("cpu")):
        kind = auto_class(request, config)
        return kind.from_config(config, dtype=dtype, **_attention(request))


def _write_quantized(asked: StoredQuantization, folder: Path) -> None:
    asked.write(folder)
    path = folder / "config.json"
    written = json.loads(path.read_text("utf-8"))
    written["quantization_config"] |= asked.loading
    path.write_text(json.dumps(written), "utf-8")


def _through_its_files(config: Any, request: LoadRequest, device: torch.device) -> Any:
    """Random weights, written in the layout of their publisher and loaded from there, as a user's
    checkpoint is."""
    with seeded(request.seed, torch.device("cpu")):
        made = HEADS["causal_lm"].from_config(config, dtype=torch.float32)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(getattr(config, MARK)), encoding="utf-8")
        found, native = read_config(folder, False, lambda message, level: None)
        assert native is not None
        made.save_pretrained(folder / "native")
        write_new(folder / "native", native, folder)
        return load_weights(folder, found, native, request, device)


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
    """A tokenizer that replaces spaces by ▁, also at the start of a text; rare characters fall back
    to bytes."""
    specials = ["<unk>", "<s>", "</s>"]
    in_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    learner = Tokenizer(models.BPE())
    # no token spans two words
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    # Other characters fall back to bytes. If the trainer chose them, the choice would differ each
    # time.
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
    # the library gives access to its merges in no other way
    learned = json.loads(learner.to_str())["model"]
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
