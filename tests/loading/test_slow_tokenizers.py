"""Checkpoints whose tokenizer is a file of sentencepiece or tiktoken: the same ids as those
libraries give, and no code of the checkpoint is run."""

import base64
import importlib.util
import itertools
import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
from loading_setup import edit_json, load
from tokenizers.pre_tokenizers import ByteLevel

from tunewright import RunError
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models import listed, slow_tokenizers
from tunewright_hf.models.export import save_result
from tunewright_hf.models.sentencepiece_model import _SAMPLES
from tunewright_hf.models.tiny import _trained

CORPUS = resources.files("tunewright_hf.models").joinpath("tiny_corpus.txt").read_text("utf-8")
EXAMPLES = Path(__file__).parents[2] / "docs/examples/data"
TEXTS = [
    *_SAMPLES,
    *CORPUS.splitlines(),
    *(EXAMPLES / "wren.jsonl").read_text("utf-8").splitlines(),
    Path(base64.__file__).read_text("utf-8"),
    "a\u0301e\u0300 \r\n\t\n   x  \n\n\n y 12345 1.5e-3 I'LL we've\n",
    "중국어 日本語テキスト、句読点。中文标点！“引号”（括号）",
    "🇩🇪🏳️‍🌈 ❤️ 𝒳 \U0001f9d1\u200d\U0001f52c",
]
EVIL = "raise SystemExit('its code was run')\n"


def no_code(folder: Path) -> Path:
    """Name tokenizer code in the config, which must not run."""
    (folder / "tokenization_own.py").write_text(EVIL)
    auto_map = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    settings = {"tokenizer_class": "OwnTokenizer", "auto_map": auto_map}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def piece_model(folder: Path, **options: Any) -> Any:
    """Train tokenizer.model in the folder; returns the library's own processor."""
    folder.mkdir(exist_ok=True)
    (folder / "corpus.txt").write_text("\n".join(TEXTS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=1200,
        minloglevel=2,
        max_sentence_length=20_000,
        **{"model_type": "bpe", "byte_fallback": True, "character_coverage": 0.99} | options,
    )
    (folder / "corpus.txt").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


LLAMA_LIKE = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def tokenizer(folder: Path, **request: Any) -> Any:
    """As a model of Llama's with this tokenizer is loaded."""
    if not (folder / "config.json").is_file():
        (folder / "config.json").write_text('{"model_type": "llama"}')
    return load(FakeRun(), str(folder), twin="llama2", weights="none", **request).tokenizer


def of_family(folder: Path, family: str, model_type: str) -> Any:
    """With the family's table; models of these types are loaded in ways of their own."""
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    file = slow_tokenizers.find(folder)
    assert file is not None
    tables = listed.read(f"tunewright_{family}", "tokenizers.toml")["tokenizer"]
    return slow_tokenizers.convert(file, tables)


# ---- sentencepiece -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_bytes", "spaces", "prefix"), list(itertools.product([True, False], repeat=3))
)
def test_pieces_of_bpe(tmp_path: Path, in_bytes: bool, spaces: bool, prefix: bool) -> None:
    library = piece_model(
        tmp_path,
        byte_fallback=in_bytes,
        remove_extra_whitespaces=spaces,
        add_dummy_prefix=prefix,
        normalization_rule_name="nmt_nfkc" if spaces else "identity",
    )
    made = tokenizer(no_code(tmp_path))
    assert made.is_fast
    for text in TEXTS:
        ids = library.encode(text)
        assert made(text, add_special_tokens=False).input_ids == ids, text
        if in_bytes:
            assert made.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc"])
def test_pieces_of_a_unigram_model(tmp_path: Path, rule: str) -> None:
    library = piece_model(tmp_path, model_type="unigram", normalization_rule_name=rule)
    made = tokenizer(no_code(tmp_path))
    assert [
        t for t in TEXTS if made(t, add_special_tokens=False).input_ids != library.encode(t)
    ] == []


def test_special_tokens(tmp_path: Path) -> None:
    library = piece_model(
        tmp_path,
        **LLAMA_LIKE,
        add_dummy_prefix=False,
        control_symbols=["<bot>"],
        user_defined_symbols=["<reserved_106>", "<reserved_107>"],
    )
    edit_json(
        no_code(tmp_path) / "tokenizer_config.json",
        pad_token={"content": "<unk>"},
        add_bos_token=True,
        added_tokens_decoder={"1200": {"content": "<|im_end|>", "special": True}},
        chat_template="{{ messages }}",
        model_max_length=4096,
    )
    made = tokenizer(tmp_path)
    text = "<reserved_106>How are you?<reserved_107>Fine"
    assert made(text, add_special_tokens=False).input_ids == library.encode(text)
    expected = [library.piece_to_id("<bot>"), *library.encode("Hi"), 1200]
    assert made("<bot>Hi<|im_end|>", add_special_tokens=False).input_ids == expected
    assert made("Hi").input_ids == [library.bos_id(), *library.encode("Hi")]
    named = (made.bos_token, made.eos_token, made.unk_token, made.pad_token)
    assert named == ("<s>", "</s>", "<unk>", "<unk>")
    assert (made.chat_template, made.model_max_length) == ("{{ messages }}", 4096)


def test_special_tokens_of_the_familys_table(tmp_path: Path) -> None:
    library = piece_model(tmp_path, **LLAMA_LIKE)
    made = of_family(no_code(tmp_path), "chatglm", "chatglm")
    size = library.get_piece_size()
    known = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>"]
    assert made.convert_tokens_to_ids([*known, "<|observation|>"]) == [
        *range(size, size + 7),
        size + 8,
    ]
    assert made.eos_token == "</s>"
    ids = made("[gMASK]sop<|user|>Hi", add_special_tokens=False).input_ids
    assert ids == [size + 1, size + 3, size + 6, *library.encode("Hi")]


def test_ids_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    piece_model(tmp_path, **LLAMA_LIKE)
    edit_json(
        no_code(tmp_path) / "tokenizer_config.json",
        added_tokens_decoder={"1207": {"content": "<|im_end|>"}},
    )
    with pytest.raises(RunError, match=r"'<\|im_end\|>' would get the id 1200, and not 1207"):
        tokenizer(tmp_path)


def test_the_result_has_a_tokenizer_json(run: FakeRun, tmp_path: Path) -> None:
    """Also where code is trusted: that of such tokenizers does not run with transformers 5."""
    library = piece_model(tmp_path / "a", **LLAMA_LIKE)
    base = load(run, twin="llama2")
    base.model.resize_token_embeddings(library.get_piece_size())
    base.model.save_pretrained(tmp_path / "a")
    no_code(tmp_path / "a")
    for trusted in (False, True):
        loaded = load(run, str(tmp_path / "a"), twin="llama2", trust_remote_code=trusted)
        save_result(loaded, tmp_path / "b")
        assert (tmp_path / "b/tokenizer.json").is_file()
        again = load(run, str(tmp_path / "b"), twin="llama2").tokenizer
        for text in TEXTS:
            assert again(text, add_special_tokens=False).input_ids == library.encode(text)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe no model", b"\x0a\x05\x0a\x03abc"])
def test_damaged_model(tmp_path: Path, content: bytes) -> None:
    (no_code(tmp_path) / "tokenizer.model").write_bytes(content)
    with pytest.raises(RunError, match=r"tokenizer\.model: ") as caught:
        tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_model_whose_ids_would_differ_is_refused(tmp_path: Path) -> None:
    """A table of characters beside whitespace that is kept: line ends become other pieces."""
    piece_model(tmp_path, normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=False)
    with pytest.raises(RunError, match="gives other ids for '  two  spaces"):
        tokenizer(no_code(tmp_path))


# ---- tiktoken ------------------------------------------------------------------------------------


def ranks_file(path: Path, pattern: str, blank: bool = False) -> dict[bytes, int]:
    """Train tokens, and write them as tiktoken does; returns them with their ranks."""
    vocabulary = json.loads(_trained("byte_level", pattern))["model"]["vocab"]
    back = {character: byte for byte, character in _bytes().items()}
    ranks = {bytes(back[c] for c in token): number for token, number in vocabulary.items()}
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in ranks.items()]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n" * (1 + blank))
    return ranks


def _bytes() -> dict[int, str]:
    """GPT-2's characters for bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    found = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in found]
    found |= {byte: chr(256 + number) for number, byte in enumerate(others)}
    assert set(found.values()) == set(ByteLevel.alphabet())
    return found


@pytest.mark.parametrize(
    ("family", "model_type", "name"),
    [
        ("qwen", "qwen", "qwen.tiktoken"),
        ("hunyuan", "hunyuan", "hy.tiktoken"),
        ("chatglm", "chatglm", "tokenizer.model"),
    ],
)
def test_ranks(tmp_path: Path, family: str, model_type: str, name: str) -> None:
    import unicodedata

    tables = listed.read(f"tunewright_{family}", "tokenizers.toml")["tokenizer"]
    (table,) = [each for each in tables if each["kind"] == "tiktoken"]
    ranks = ranks_file(tmp_path / name, table["pattern"])
    special = {each: len(ranks) + n for n, each in enumerate(table.get("special", ()))}
    library = tiktoken.Encoding(
        "own", pat_str=table["pattern"], mergeable_ranks=ranks, special_tokens=special
    )
    settings = no_code(tmp_path) / "tokenizer_config.json"
    if not special:  # they stand in the config
        declared = {str(len(ranks)): {"content": "<|endoftext|>", "special": True}}
        edit_json(settings, added_tokens_decoder=declared, eos_token="<|endoftext|>")
        special = {"<|endoftext|>": len(ranks)}
    made = of_family(tmp_path, family, model_type)
    assert made.is_fast and made.eos_token == "<|endoftext|>"
    for text in TEXTS:
        given = unicodedata.normalize("NFC", text) if table.get("composed") else text
        ids = library.encode_ordinary(given)
        assert made(text, add_special_tokens=False).input_ids == ids, text
        assert made.decode(ids) == given
    for token, number in special.items():
        assert made(token, add_special_tokens=False).input_ids == [number]
    if "extra" in table:
        assert made.convert_tokens_to_ids("<|extra_0|>") == len(ranks) + len(special)


def test_pattern_that_stands_in_code_alone(tmp_path: Path) -> None:
    ranks_file(tmp_path / "own.tiktoken", r"\p{L}+|\s+|.")
    with pytest.raises(RunError, match="names code of its own") as caught:
        tokenizer(no_code(tmp_path))
    assert "--trust-remote-code" in caught.value.hint


# ---- libraries that are not there ----------------------------------------------------------------


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "tunewright_hf.models.slow_tokenizers.find_spec",
        lambda asked: None if asked == name else found(asked),
    )


@pytest.mark.parametrize("code", [True, False], ids=["converted", "of transformers"])
def test_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: bool
) -> None:
    piece_model(tmp_path, **LLAMA_LIKE)
    if code:
        no_code(tmp_path)
    without(monkeypatch, "sentencepiece")
    with pytest.raises(RunError, match="its tokenizer needs sentencepiece") as caught:
        tokenizer(tmp_path)
    assert caught.value.hint == 'pip install "tunewright-hf[slow-tokenizers]"'


@pytest.mark.usefixtures("modules_of_checkpoints")
def test_missing_library_of_trusted_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks_file(no_code(tmp_path) / "own.tiktoken", r"\p{L}+|\s+|.")
    (tmp_path / "tokenization_own.py").write_text("import tiktoken\n")
    without(monkeypatch, "tiktoken")
    with pytest.raises(RunError, match=r"(needs|imports) tiktoken") as caught:
        tokenizer(tmp_path, trust_remote_code=True)
    assert caught.value.hint == 'pip install "tunewright-hf[slow-tokenizers]"'
