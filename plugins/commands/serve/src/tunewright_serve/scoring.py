"""POST /v1/embeddings, /v1/score, /v1/rerank: numbers in place of text."""

import asyncio
import base64
import time
from array import array
from typing import Any

from tunewright.inference import PromptInput
from tunewright.types import Conversation, Message
from tunewright_serve.chat import new_id
from tunewright_serve.errors import ApiError
from tunewright_serve.service import Service
from tunewright_serve.wire_other import EmbeddingsBody, RerankBody, ScoreBody

__all__ = ["embeddings", "rerank", "scores"]


async def embeddings(service: Service, body: EmbeddingsBody) -> dict[str, Any]:
    public, model = service.model(body.model)
    service.require("embeddings", "model", "embeddings")
    given: Any = body.input
    is_one = isinstance(given, str) or isinstance(given[0], int)
    with service.counted():
        inputs = [given] if is_one else given
        found = await asyncio.to_thread(service.engine.embed, inputs, model)
    data = [
        {"object": "embedding", "index": n, "embedding": _vector(values, body.encoding_format)}
        for n, values in enumerate(found.values)
    ]
    return {
        "object": "list",
        "data": data,
        "model": public,
        "usage": _usage(found.prompt_tokens),
    }


def _vector(values: list[float], form: str) -> list[float] | str:
    if form == "float":
        return values
    numbers = array("f", values)  # base64 of 32-bit floats, little-endian
    if array("H", [1]).tobytes() != b"\1\0":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def _usage(tokens: list[int]) -> dict[str, int]:
    return {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}


async def scores(service: Service, body: ScoreBody) -> dict[str, Any]:
    """The reward model's score of each text_2 as the answer to its text_1."""
    first = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    second = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        problem = f"text_2: {len(second)} texts, and {len(first)} in text_1"
        raise ApiError(problem, param="text_2")
    public, found, tokens = await _scores(
        service, body.model, list(zip(first, second, strict=True))
    )
    data = [{"index": n, "object": "score", "score": score} for n, score in enumerate(found)]
    return {
        "id": new_id("score"),
        "object": "list",
        "created": int(time.time()),
        "model": public,
        "data": data,
        "usage": _usage(tokens),
    }


async def rerank(service: Service, body: RerankBody) -> dict[str, Any]:
    """Documents by their score as answers to the query, best first."""
    pairs = [(body.query, document) for document in body.documents]
    public, found, tokens = await _scores(service, body.model, pairs)
    best = sorted(range(len(found)), key=lambda n: found[n], reverse=True)[: body.top_n]
    results = [
        {"index": n, "relevance_score": found[n]}
        | ({"document": {"text": body.documents[n]}} if body.return_documents else {})
        for n in best
    ]
    return {"id": new_id("rerank"), "model": public, "results": results, "usage": _usage(tokens)}


async def _scores(
    service: Service, name: str | None, pairs: list[tuple[str, str]]
) -> tuple[str, list[float], list[int]]:
    public, model = service.model(name)
    service.require("scores", "model", "scores, which a reward model gives")
    inputs: list[PromptInput] = [
        Conversation([Message("user", asked), Message("assistant", answer)])
        for asked, answer in pairs
    ]
    with service.counted():
        found = await asyncio.to_thread(service.engine.score, inputs, model)
    return public, found.values, found.prompt_tokens
