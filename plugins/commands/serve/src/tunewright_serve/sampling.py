"""Sampling settings of a request, for the engine."""

from typing import Any

from tunewright.inference import GenerateRequest
from tunewright_serve.errors import ApiError
from tunewright_serve.wire import SamplingBody

__all__ = ["sampling_request", "stop_strings"]


def sampling_request(body: SamplingBody, model: str, **others: Any) -> GenerateRequest:
    """A request for the engine. others: fields that are not for sampling. Raises ApiError."""
    return GenerateRequest(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=None if body.top_k is None else max(body.top_k, 0),  # -1 is off, too
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_logit_bias(body.logit_bias or {}),
        seed=None if body.seed is None else body.seed % 2**63,
        stop=stop_strings(body.stop),
        stop_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        n=body.n or 1,
        model=model,
        **others,
    )


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
