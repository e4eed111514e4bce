"""One answer over HTTP: a request to /v1/completions, and the tokens of its stream."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import httpx2

from tunewright import RunError
from tunewright.inference import FinishReason
from tunewright_engine_remote.servers import Server, sampling_fields
from tunewright_hf.inference.rows import Row, Score

_GONE = (502, 503, 504)  # statuses of a server that ends or starts, and of proxies before it
_ENDS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class ServerFailed(RunError):
    """The server failed at a request that it took."""


class ServerLost(ServerFailed):
    """The server has ended, or does not take requests now."""


async def generate(client: httpx2.AsyncClient, server: Server, row: Row, base: str) -> FinishReason:
    """Generate a row, and return why it ended. Raises RunError."""
    if row.prompt_logprobs is not None:
        await _score_prompt(client, server, row, base)
    if not row.max_new_tokens:
        return "length"
    body = sampling_fields(row) | server.fields(row, base)
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise _refusal(response.status_code, await response.aread())
        async with aclosing(_events(response.aiter_bytes())) as events:
            async for data in events:
                if "error" in data:
                    raise ServerFailed(_message(data))
                for choice in data["choices"]:
                    if (reason := _push(row, choice)) is not None:
                        return reason  # closes the connection: the server stops, too
    return "stop"  # it gave no finish_reason, and ended its stream properly


def _push(row: Row, choice: dict[str, Any]) -> FinishReason | None:
    """Add the tokens of a chunk to a row. Returns why it ends, if it does."""
    tokens, said = choice.get("token_ids"), choice.get("finish_reason")
    if tokens is None:
        if not said and not choice["text"]:
            return None
        raise RunError("the server gives no token ids: vLLM 0.33 or SGLang 0.5.23 is needed")
    stop = choice.get("stop_reason", choice.get("matched_stop"))
    for token, score in zip(tokens, _scores(row, choice, tokens), strict=True):
        row.push(token, score)
        if token in row.stop_ids or token == stop or not row.on_token(row, token, score):
            return "stop"
        if row.cancelled:
            return "cancelled"
        if len(row.tokens) >= row.max_new_tokens:
            return "length"
    if said and said not in _ENDS:
        raise RunError(f"the server ended the answer: {said}")
    return _ENDS[said] if said else None


def _scores(row: Row, choice: dict[str, Any], tokens: list[int]) -> Sequence[Score | None]:
    """Scores of a chunk's tokens, whose names are like token_id:42."""
    if row.logprobs is None:
        return [None] * len(tokens)
    found = choice["logprobs"]
    values = zip(tokens, found["token_logprobs"], found["top_logprobs"], strict=True)
    return [Score(token, value, _top(row.logprobs, top)) for token, value, top in values]


def _top(count: int, named: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    pairs = [(int(name.partition(":")[2]), value) for name, value in (named or {}).items()]
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:count])


async def _score_prompt(client: httpx2.AsyncClient, server: Server, row: Row, base: str) -> None:
    """Score the prompt's tokens by a request of its own: a stream has no prompt_logprobs."""
    body = sampling_fields(row) | server.fields(row, base)
    body |= {"stream": False, "max_tokens": 1, "prompt_logprobs": row.prompt_logprobs}
    body.pop("structured_outputs", None)
    response = await client.post("/v1/completions", json=body)
    if response.status_code != 200:
        raise _refusal(response.status_code, response.content)
    scores = response.json()["choices"][0]["prompt_logprobs"]
    assert row.prompt_logprobs is not None
    for token, found in zip(row.prompt, scores, strict=True):
        named = {int(name): each["logprob"] for name, each in (found or {}).items()}
        top = sorted(named.items(), key=lambda pair: -pair[1])[: row.prompt_logprobs]
        row.prompt_scores.append(Score(token, named.get(token), tuple(top)))


async def _events(parts: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any]]:
    """The JSON of server-sent events, up to [DONE]. Raises RunError if the stream breaks off."""
    held = b""
    async for part in parts:
        *whole, held = (held + part).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in whole:
            for line in event.split(b"\n"):
                if not line.startswith(b"data:"):
                    continue
                text = line[5:].strip()
                if text == b"[DONE]":
                    return
                yield json.loads(text)
    raise ServerLost("the server broke off")


def _refusal(status: int, body: bytes) -> RunError:
    try:
        said = _message(json.loads(body))
    except ValueError:
        said = body[:200].decode(errors="replace")
    kind = ServerLost if status in _GONE else ServerFailed if status >= 500 else RunError
    return kind(f"the server refused the request with {status}: {said}")


def _message(data: dict[str, Any]) -> str:
    """The message of an error, which vLLM nests, and SGLang does not in all cases."""
    found = data.get("error", data)
    text = found.get("message", found) if isinstance(found, dict) else found
    return " ".join(str(text).split())[:300]
