"""Tokenizers of checkpoints that have no tokenizer.json: sentencepiece's *.model and *.tiktoken
files are made fast tokenizers, without running the Python code that comes with them.

Such code was written for transformers 4, and does not run with 5. What it adds to its file (the
pattern that splits words, special tokens) is data of the family, in tokenizers.toml beside its
checkpoints.toml: a [[tokenizer]] for each `model_type` and `kind` (sentencepiece or tiktoken), with
`special` (tokens after those of the file, in order), `extra` (how many of <|extra_0|> and so on
follow), `pattern` (of tiktoken), `composed` (texts are normalised to NFC), and `bos`, `eos`, `pad`.
"""

import base64
import binascii
import tempfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, processors
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from tunewright import RunError
from tunewright_hf.models.errors import NEEDS_TOKENIZERS
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.tokenizer_json import check_tokenizer_json

_LARGEST = 2**26  # bytes of a file; the largest that is known, Gemma's, has 4 MB
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
_KEPT = ("chat_template", "model_max_length", "padding_side")

Table = Mapping[str, Any]  # a [[tokenizer]] of tokenizers.toml


def find(folder: Path) -> Path | None:
    """The file to make a tokenizer of: where there is no tokenizer.json, and where code would be
    run for it. transformers makes tokenizers of its own classes itself."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    file = _file(folder)
    settings = _settings(folder)
    if file is None or "auto_map" in settings:
        return file
    name = settings.get("tokenizer_class")
    if name is None:
        return None if _model_type(folder) in CONFIG_MAPPING else file
    known = isinstance(name, str) and tokenizer_class_from_name(name) is not None
    return None if known else file


def need_library(folder: Path) -> None:
    """Raise RunError with the command to type, where transformers needs a library for the file."""
    file = _file(folder)
    if file is not None:
        name = "sentencepiece" if read_tiktoken(file) is None else "tiktoken"
        if find_spec(name) is None:
            raise RunError(f"its tokenizer needs {name}", place=str(file), hint=NEEDS_TOKENIZERS)


def _file(folder: Path) -> Path | None:
    if (folder / "tokenizer.json").is_file():
        return None
    files = (each for pattern in ("*.tiktoken", "*.model") for each in folder.glob(pattern))
    return next(iter(sorted(each for each in files if each.is_file())), None)


def _model_type(folder: Path) -> Any:
    return read_json(folder / "config.json").get("model_type")


def convert(file: Path, tables: Iterable[Table]) -> Any:
    """A fast tokenizer from a file of sentencepiece or tiktoken, None where its pattern of words
    stands in Python code alone.

    tables: of the family's tokenizers.toml. Raises RunError where the file is damaged, where its
    ids cannot be those of the file, or where a library is missing.
    """
    if file.stat().st_size > _LARGEST:
        raise RunError(f"has more than {_LARGEST:,} bytes", place=str(file))
    ranks = read_tiktoken(file)
    kind = "sentencepiece" if ranks is None else "tiktoken"
    asked = (_model_type(file.parent), kind)
    fits = (each for each in tables if (each["model_type"], each["kind"]) == asked)
    table = next(fits, {})
    if ranks is None:
        from tunewright_hf.models import sentencepiece_model

        made, names = sentencepiece_model.convert(file)
    elif "pattern" in table:
        made, names = _from_ranks(ranks, table["pattern"]), {}
    else:
        return None
    if table.get("composed"):
        made.normalizer = normalizers.NFC()
    return _finished(made, names, table, file)


def read_tiktoken(file: Path) -> dict[bytes, int] | None:
    """The tokens of a file of tiktoken's with their ranks; None where it is no such file."""
    ranks: dict[bytes, int] = {}
    try:
        for line in file.read_bytes().splitlines():
            if line:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error):
        return None
    return ranks or None


def _from_ranks(ranks: dict[bytes, int], pattern: str) -> Tokenizer:
    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
            return ranks  # tiktoken's own reader would keep a copy in a temporary folder

    return Converter(pattern=pattern).converted()


def _finished(made: Tokenizer, names: dict[str, str], table: Table, file: Path) -> Any:
    """The tokenizer with its special tokens. names: bos_token and so on, as the file has them."""
    settings = _settings(file.parent)
    size = made.get_vocab_size()
    special = [*table.get("special", ()), *(f"<|extra_{n}|>" for n in range(table.get("extra", 0)))]
    made.add_special_tokens([AddedToken(each, normalized=False) for each in special])
    declared = _declared(settings)
    for number, token in sorted(declared.items()):
        if made.token_to_id(token["content"]) is None or number < size:
            fields = {"special": bool(token.get("special", True)), "normalized": False}
            added = AddedToken(token["content"], **fields)
            made.add_special_tokens([added]) if fields["special"] else made.add_tokens([added])
        if (own := made.token_to_id(token["content"])) != number:
            problem = f"{token['content']!r:.60} would get the id {own}, and not {number}"
            raise RunError(
                problem, place=str(file), hint="the family's tokenizers.toml lacks tokens"
            )
    known = made.get_vocab()
    named = names | {f"{key}_token": table[key] for key in ("bos", "eos", "pad") if key in table}
    named |= {key: text for key in _NAMED if (text := _text(settings.get(key))) is not None}
    named = {key: text for key, text in named.items() if text in known}
    made.add_special_tokens([AddedToken(text, normalized=False) for text in named.values()])
    _add_ends(made, settings, named)
    _check(made, file)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        clean_up_tokenization_spaces=False,
        **named,
        **{key: settings[key] for key in _KEPT if settings.get(key) is not None},
    )


def _declared(settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    found = settings.get("added_tokens_decoder")
    tokens = found.items() if isinstance(found, dict) else ()
    return {
        int(number): token
        for number, token in tokens
        if str(number).isdecimal() and isinstance(token, dict) and _text(token) is not None
    }


def _add_ends(made: Tokenizer, settings: dict[str, Any], named: dict[str, str]) -> None:
    """BOS and EOS round a text, where tokenizer_config.json says so."""
    bos, eos = (
        [named[f"{each}_token"]]
        if settings.get(f"add_{each}_token") is True and f"{each}_token" in named
        else []
        for each in ("bos", "eos")
    )
    if bos or eos:
        pair = [*bos, "$A", *eos, *(f"{each}:1" for each in (*bos, "$B", *eos))]
        made.post_processor = processors.TemplateProcessing(
            single=[*bos, "$A", *eos],
            pair=pair,
            special_tokens=[(each, made.token_to_id(each)) for each in {*bos, *eos}],
        )


def _check(made: Tokenizer, file: Path) -> None:
    """As for any tokenizer.json of a stranger."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        path.write_text(made.to_str(), encoding="utf-8")
        try:
            check_tokenizer_json(path)
        except RunError as error:
            raise RunError(f"makes a tokenizer that is refused: {error}", place=str(file)) from None


def _text(value: Any) -> str | None:
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, over special_tokens_map.json."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found |= read_json(folder / name)
    return found
