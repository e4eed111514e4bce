"""Bytes of single tokens."""

import re
from functools import cached_property
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

__all__ = ["TokenBytes"]

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Bytes that each token stands for: joined, those of a text's tokens are the text's.

    Byte-level vocabularies spell a byte as a character, sentencepiece's as `<0xE2>` and a space as
    `▁`. Added tokens are spelled as they are.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = set(tokenizer.added_tokens_decoder)

    @cached_property
    def _is_byte_level(self) -> bool:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is not None and "ByteLevel" in repr(backend.decoder)

    def of(self, token: int) -> bytes:
        spelled = self._tokenizer.convert_ids_to_tokens(token)
        if spelled is None:  # the vocabulary is padded
            return b""
        if isinstance(spelled, bytes):
            return spelled
        if token in self._added:
            return str(spelled).encode()
        if self._is_byte_level:
            return bytes(_BYTES.get(character, 0x3F) for character in spelled)
        if found := _BYTE.fullmatch(spelled):
            return bytes([int(found[1], 16)])
        return str(spelled).replace("▁", " ").encode()


def _alphabet() -> dict[str, int]:
    """The character that stands for each byte, as GPT-2 chose them."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    found = {chr(byte): byte for byte in plain}
    found |= {chr(0x100 + number): byte for number, byte in enumerate(rest)}
    assert found.keys() == set(ByteLevel.alphabet())
    return found


_BYTES = _alphabet()
