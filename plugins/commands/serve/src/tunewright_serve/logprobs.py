"""Log-probabilities in the forms of chat completions and of completions."""

from collections.abc import Sequence
from typing import Any

from tunewright.inference import TokenScore

__all__ = ["LegacyLogprobs", "chat_logprobs"]

_LEAST = -9999.0  # in place of minus infinity, which JSON has not


def chat_logprobs(tokens: Sequence[TokenScore]) -> list[dict[str, Any]]:
    return [
        _token(token.data, token.logprob)
        | {"top_logprobs": [_token(data, logprob) for _, data, logprob in token.top]}
        for token in tokens
    ]


def _token(data: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": _text(data), "logprob": _finite(logprob), "bytes": list(data)}


def _text(data: bytes) -> str:
    """Text of a token; bytes that are part of a character as OpenAI shows them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _LEAST)


class LegacyLogprobs:
    """The form of /v1/completions: four lists. offset: of the first token in the text."""

    def __init__(self, top: int, offset: int = 0) -> None:
        self._top, self._offset = top, offset

    def as_dict(self, tokens: Sequence[TokenScore]) -> dict[str, Any]:
        texts = [_text(token.data) for token in tokens]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.data.decode(errors="ignore"))
        return {
            "tokens": texts,
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [self._best(token) for token in tokens] if self._top else None,
            "text_offset": offsets,
        }

    def _best(self, token: TokenScore) -> dict[str, float | None] | None:
        if token.logprob is None:
            return None
        return {_text(data): _finite(logprob) for _, data, logprob in token.top[: self._top]}
