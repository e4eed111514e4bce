"""Sampling settings of a request, for the engine."""

from collections.abc import Mapping
from typing import Any

from tunewright.inference import GenerateRequest
from tunewright_serve.errors import ApiError
from tunewright_serve.wire import SamplingBody

__all__ = ["sampling_request", "stop_strings"]


#: fields of bodies that are fields of GenerateRequest
_SAME = frozenset(("temperature", "top_p", "min_p", "repetition_penalty"))
#: others, which most requests leave out
_OTHERS = frozenset(
    (
        "frequency_penalty",
        "ignore_eos",
        "logit_bias",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "stop_token_ids",
        "top_k",
    )
)


def sampling_request(body: SamplingBody, model: str, **others: Any) -> GenerateRequest:
    """A request for the engine. others: fields that are not for sampling. Raises ApiError."""
    request = GenerateRequest(model=model, **others)
    given: Mapping[str, Any] = body
    for name in given.keys() & _SAME:
        setattr(request, name, given[name])
    if _OTHERS.isdisjoint(given):
        return request
    request.n = body.get("n") or 1
    if (top_k := body.get("top_k")) is not None:
        request.top_k = max(top_k, 0)  # -1 is off, too
    request.presence_penalty = body.get("presence_penalty") or 0.0
    request.frequency_penalty = body.get("frequency_penalty") or 0.0
    request.ignore_eos = bool(body.get("ignore_eos"))
    if bias := body.get("logit_bias"):
        request.logit_bias = _logit_bias(bias)
    if (seed := body.get("seed")) is not None:
        request.seed = seed % 2**63
    request.stop = stop_strings(body.get("stop"))
    request.stop_ids = tuple(body.get("stop_token_ids") or ())
    return request


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """Raises ApiError if one is empty."""
    given = [stop] if isinstance(stop, str) else stop or []
    if "" in given:
        raise ApiError("stop: a stop string is empty", param="stop")
    return tuple(given)


def _logit_bias(bias: dict[str, float]) -> dict[int, float]:
    if wrong := next((token for token in bias if not token.isdecimal()), None):
        raise ApiError(f"logit_bias: {wrong!r:.40} is no token id", param="logit_bias")
    return {int(token): value for token, value in bias.items()}
