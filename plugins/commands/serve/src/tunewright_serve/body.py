"""Bodies of requests: read with limits, parsed, and checked."""

import asyncio
import json
from functools import cache
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.types import Message, Receive, Scope

from tunewright_serve.auth import headers_of
from tunewright_serve.errors import ApiError, validation_error
from tunewright_serve.service import Limits
from tunewright_serve.sse import ClientGone

__all__ = ["read_body"]

B = TypeVar("B")
_CLOSE = {"Connection": "close"}  # what is still to come of the body is not read


async def read_body(scope: Scope, receive: Receive, kind: TypeAdapter[B], limits: Limits) -> B:
    """Raises ApiError, and ClientGone."""
    _check_headers(headers_of(scope), limits)
    message = _received(receive)
    if message is None or message.get("more_body"):
        data = await _read(message, receive, limits)
    else:  # all has come: there is no wait, and no limit to it
        data = _part(message, limits.body, limits)
    if b"NaN" not in data and b"Infinity" not in data and _brackets(data) <= limits.depth:
        try:  # the quick way
            return kind.validate_json(data)
        except ValidationError:  # the long way says what is wrong
            pass
    parsed = parse_json(data, limits)
    try:
        return kind.validate_python(parsed)
    except ValidationError as error:
        raise validation_error(error, _fields(kind)) from error


@cache
def _fields(kind: TypeAdapter[Any]) -> frozenset[str]:
    return frozenset(kind.json_schema()["properties"])


def _check_headers(headers: dict[bytes, bytes], limits: Limits) -> None:
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise ApiError("compressed bodies are not taken", status=415, headers=_CLOSE)
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > limits.body:
        raise _too_large(limits)


async def _read(message: Message | None, receive: Receive, limits: Limits) -> bytes:
    """A body that comes in several messages. message: the first, if it has come."""
    parts, left = [], limits.body
    try:
        async with asyncio.timeout(limits.body_seconds):
            message = message or await receive()
            while True:
                parts.append(_part(message, left, limits))
                if not message.get("more_body"):
                    return b"".join(parts)
                left -= len(parts[-1])
                message = await receive()
    except TimeoutError as error:
        problem = f"the body did not arrive within {limits.body_seconds:g} seconds"
        raise ApiError(problem, status=408, headers=_CLOSE) from error


def _received(receive: Receive) -> Message | None:
    """The next message if it is there; else None, and it is still to be received. A time limit
    costs as much as the rest of reading a body."""
    coming = receive().__await__()
    try:
        next(coming)
    except StopIteration as done:
        message: Message = done.value
        return message
    coming.close()
    return None


def _part(message: Message, left: int, limits: Limits) -> bytes:
    """A message's part of a body, of which so many bytes may be left. Raises ApiError,
    ClientGone."""
    if message["type"] == "http.disconnect":
        raise ClientGone
    part: bytes = message.get("body", b"")
    if len(part) > left:
        raise _too_large(limits)
    return part


def _brackets(data: bytes) -> int:
    return data.count(b"[") + data.count(b"{")


def _too_large(limits: Limits) -> ApiError:
    problem = f"the body has over {limits.body} bytes"
    return ApiError(problem, status=413, code="body_too_large", headers=_CLOSE)


def parse_json(data: bytes, limits: Limits) -> Any:
    """Parse JSON as the standard has it. Raises ApiError."""
    try:
        parsed = _DECODER.decode(data.decode(json.detect_encoding(data)))
        if b"\\u" in data:  # half of a pair is no character
            json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError as error:
        raise _too_deep(limits) from error
    except ValueError as error:
        raise ApiError(f"the body is not JSON: {error}") from error
    if _brackets(data) > limits.depth:
        _check_depth(parsed, limits)
    return parsed


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _too_deep(limits: Limits) -> ApiError:
    return ApiError(f"the body has over {limits.depth} levels of brackets")


def _check_depth(parsed: Any, limits: Limits) -> None:
    level, depth = [parsed], 0
    while level:
        if depth > limits.depth:
            raise _too_deep(limits)
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        depth += 1
