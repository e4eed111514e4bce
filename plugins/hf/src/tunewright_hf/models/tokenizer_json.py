"""Checks of an untrusted tokenizer.json, before the library reads it.

The library (tokenizers, in Rust) panics, runs for hours or exhausts memory with some values. Steps
are allow-listed here, values known to cause this are refused, and patterns are tried in a process
that can be killed (tokenizer_probe).
"""

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunewright import RunError
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.tokenizer_probe import find_problem

_MAX_STEPS = 64  # steps of a Sequence, including nested ones
_MAX_GROWTH = 64  # factor by which replacements may lengthen a text
_MAX_PATTERN = 20_000  # characters; the longest known pattern, of DeepSeek-Coder, has 1,500
_MAX_TEXT = 1000  # characters of an inserted text
_MAX_MAPPED = 256  # bytes that replace a character; NFKC needs 33
_MAX_ID = 2**31 - 1
_MAX_PADDING = 2**20  # tokens

_NORMALIZERS = (
    "BertNormalizer ByteLevel Lowercase NFC NFD NFKC NFKD Nmt Precompiled Prepend Replace Strip "
    "StripAccents"
)
_PRE_TOKENIZERS = (
    "BertPreTokenizer ByteLevel CharDelimiterSplit Digits FixedLength Metaspace Punctuation Split "
    "UnicodeScripts Whitespace WhitespaceSplit"
)
_POST_PROCESSORS = "BertProcessing ByteLevel RobertaProcessing TemplateProcessing"
_DECODERS = "BPEDecoder ByteFallback ByteLevel CTC Fuse Metaspace Replace Strip WordPiece"
#: section → types of its steps, and the key of a Sequence's list
_SECTIONS = {
    "normalizer": (_NORMALIZERS.split(), "normalizers"),
    "pre_tokenizer": (_PRE_TOKENIZERS.split(), "pretokenizers"),
    "post_processor": (_POST_PROCESSORS.split(), "processors"),
    "decoder": (_DECODERS.split(), "decoders"),
}
_MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")


class _Refused(Exception):
    """A field that is refused. at: its dotted name."""

    def __init__(self, at: str, problem: str) -> None:
        super().__init__(problem)
        self.at = at


def check_tokenizer_json(path: Path) -> dict[str, int]:
    """Refuse a tokenizer.json that would break the library. Raises RunError with the field.

    Returns the ids of its added tokens. Wrong types are left to the library, which reports them
    itself. Takes about 0.2 s for 10 MB, mostly for reading JSON.
    """
    found = read_json(path)
    try:
        for section in _SECTIONS:
            steps = list(_steps(found.get(section), section, section))
            if section in ("normalizer", "decoder"):
                _check_growth(steps, section)
        _check_model(_object(found.get("model"), "model"))
        _check_added(found.get("added_tokens"))
        _check_limits(found)
    except _Refused as error:
        hint = "use the tokenizer of the model's own publisher"
        raise RunError(f"{error.at}: {error}", place=str(path), hint=hint) from None
    pipeline = {section: found.get(section) for section in _SECTIONS}
    if problem := find_problem(json.dumps(pipeline, sort_keys=True)):
        hint = "its patterns were tried on texts of all sorts; do not use this tokenizer"
        raise RunError(problem, place=str(path), hint=hint)
    return {token["content"]: token["id"] for token in found["added_tokens"]}


def _object(value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(at, f"is {type(value).__name__}, not an object")
    return value


# ---- steps ---------------------------------------------------------------------------------------


def _steps(value: Any, section: str, at: str) -> Iterator[dict[str, Any]]:
    """Yield the steps of a section in order, each checked, including those in Sequences."""
    types, inner = _SECTIONS[section]
    pending = [] if value is None else [(at, value, 0)]
    count = 0
    while pending:
        at, step, depth = pending.pop(0)
        count += 1
        if count > _MAX_STEPS or depth > 8:
            raise _Refused(section, f"has more than {_MAX_STEPS} steps, or is nested too deep")
        name = _object(step, at).get("type")
        if name == "Sequence":
            listed = step.get(inner)
            if not isinstance(listed, list):
                raise _Refused(f"{at}.{inner}", "is missing, or no list")
            nested = [(f"{at}.{inner}.{n}", each, depth + 1) for n, each in enumerate(listed)]
            pending = nested + pending
        elif name not in types:
            raise _Refused(f"{at}.type", f"is {name!r:.60}, not one of {', '.join(types)}")
        else:
            if check := _VALUES.get(name):
                check(step, at)
            yield step


def _check_pattern(step: dict[str, Any], at: str) -> None:
    pattern = step.get("pattern")
    known = isinstance(pattern, dict) and list(pattern) in (["String"], ["Regex"])
    written = next(iter(pattern.values())) if known and pattern else None
    if not isinstance(written, str):
        raise _Refused(f"{at}.pattern", 'is not {"String": …} or {"Regex": …}')
    if len(written) > _MAX_PATTERN:
        raise _Refused(f"{at}.pattern", f"has more than {_MAX_PATTERN} characters")


def _check_text(step: dict[str, Any], key: str, at: str) -> None:
    text = step.get(key)
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise _Refused(f"{at}.{key}", f"is no text of at most {_MAX_TEXT} characters")


def _check_replace(step: dict[str, Any], at: str) -> None:
    _check_pattern(step, at)
    _check_text(step, "content", at)


def _check_prepend(step: dict[str, Any], at: str) -> None:
    _check_text(step, "prepend", at)


def _check_precompiled(step: dict[str, Any], at: str) -> None:
    """Check a sentencepiece table: the size of a trie, the trie, and NUL-terminated texts."""
    at = f"{at}.precompiled_charsmap"
    try:
        table = base64.b64decode(step["precompiled_charsmap"], validate=True)
    except (KeyError, TypeError, ValueError):
        raise _Refused(at, "is not written in base64") from None
    size = int.from_bytes(table[:4], "little")
    if len(table) < 4 or size % 4 or 4 + size > len(table):
        raise _Refused(at, "is no table of characters")
    longest = max(map(len, table[4 + size :].split(b"\0")))
    if longest > _MAX_MAPPED:
        raise _Refused(at, f"puts {longest:,} bytes in place of a character")


def _check_fixed_length(step: dict[str, Any], at: str) -> None:
    if not _is_number(step.get("length"), 1, _MAX_ID):
        raise _Refused(f"{at}.length", f"is {step.get('length')!r:.60}, not a number of at least 1")


def _check_template(step: dict[str, Any], at: str) -> None:
    tokens = _object(step.get("special_tokens"), f"{at}.special_tokens")
    for key, sequences in (("single", "A"), ("pair", "AB")):
        pieces = step.get(key)
        if not isinstance(pieces, list) or len(pieces) > _MAX_STEPS:
            raise _Refused(f"{at}.{key}", f"is no list of at most {_MAX_STEPS} pieces")
        for number, piece in enumerate(pieces):
            place = f"{at}.{key}.{number}"
            kind, value = next(iter(_object(piece, place).items()), (None, None))
            name = _object(value, place).get("id")
            if kind == "Sequence" and name not in tuple(sequences):
                raise _Refused(place, f"is sequence {name!r:.60}, which there is not")
            if kind == "SpecialToken" and not (isinstance(name, str) and name in tokens):
                raise _Refused(place, f"is {name!r:.60}, which is not among special_tokens")


_VALUES: dict[str, Callable[[dict[str, Any], str], None]] = {
    "Replace": _check_replace,
    "Split": _check_pattern,
    "Prepend": _check_prepend,
    "Precompiled": _check_precompiled,
    "FixedLength": _check_fixed_length,
    "TemplateProcessing": _check_template,
}


def _check_growth(steps: list[dict[str, Any]], section: str) -> None:
    """Refuse chained replacements that multiply: six of e by 40 e give 4 GB."""
    growth = 1.0
    for step in (step for step in steps if step["type"] == "Replace"):
        # minimum number of characters that it replaces
        least = len(step["pattern"].get("String", ""))
        added = len(step["content"])
        growth *= max(1.0, added / least if least else added + 1)
    if growth > _MAX_GROWTH:
        raise _Refused(section, f"makes a text up to {growth:,.0f} times as long")


# ---- the model, added tokens and limits ----------------------------------------------------------


def _is_number(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _check_model(model: dict[str, Any]) -> None:
    name = model.get("type")
    if name is not None and name not in _MODELS:  # old files do not have it
        raise _Refused("model.type", f"is {name!r:.60}, not one of {', '.join(_MODELS)}")
    vocabulary, unknown = model.get("vocab"), model.get("unk_token")
    if isinstance(vocabulary, dict):
        for token, number in vocabulary.items():
            if not _is_number(number, 0, _MAX_ID):
                raise _Refused("model.vocab", f"gives {token!r:.60} the id {number!r:.60}")
        _check_unique((number, token) for token, number in vocabulary.items())
        if name in ("WordLevel", "WordPiece") and not (
            isinstance(unknown, str) and unknown in vocabulary
        ):
            raise _Refused("model.unk_token", f"is {unknown!r:.60}, which is not in the vocabulary")
    elif name == "Unigram" and isinstance(vocabulary, list):
        if model.get("unk_id") is None and not model.get("byte_fallback"):
            raise _Refused("model.unk_id", "is missing: a character that is not known ends it")
    else:
        raise _Refused("model.vocab", "is missing, or of another form than its type has")
    if not _is_number(model.get("max_input_chars_per_word", 100), 1, 10_000):
        raise _Refused("model.max_input_chars_per_word", "is no number from 1 to 10,000")


def _check_added(tokens: Any) -> None:
    if not isinstance(tokens, list):
        raise _Refused("added_tokens", "is no list")
    for number, token in enumerate(tokens):
        at = f"added_tokens.{number}"
        if not isinstance(_object(token, at).get("content"), str):
            raise _Refused(f"{at}.content", "is no text")
        if not _is_number(token.get("id"), 0, _MAX_ID):
            raise _Refused(f"{at}.id", f"is {token.get('id')!r:.60}")
    _check_unique({(token["id"], token["content"]) for token in tokens})


def _check_unique(pairs: Any) -> None:
    """Check that ids and tokens are unique. pairs: (id, token)."""
    pairs = list(pairs)
    if len({number for number, _ in pairs}) != len(pairs):
        twice, _ = Counter(number for number, _ in pairs).most_common(1)[0]
        names = ", ".join(repr(token)[:60] for number, token in pairs if number == twice)
        raise _Refused("ids", f"{twice} is the id of several tokens: {names[:200]}")


def _check_limits(found: dict[str, Any]) -> None:
    """Refuse excessive limits: the library would pad to a fixed length of 10**12."""
    for key in ("padding", "truncation"):
        limits = found.get(key)
        for name, value in limits.items() if isinstance(limits, dict) else ():
            value = value.get("Fixed", 0) if isinstance(value, dict) else value
            if isinstance(value, int | float) and not 0 <= value <= _MAX_PADDING:
                raise _Refused(f"{key}.{name}", f"is {value!r:.60}, more than {_MAX_PADDING:,}")
