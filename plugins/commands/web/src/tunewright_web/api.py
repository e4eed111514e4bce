"""The REST API: routes of all pages below /api/v1, with bodies and queries checked."""

import inspect
import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tunewright_web.errors import WebError
from tunewright_web.page import PREFIX, Api, Call, Page, read_body

__all__ = ["api_routes"]

_BYTES = 4 * 2**20


def api_routes(pages: Iterable[Page]) -> list[Route]:
    """Routes of the API, several methods of one path in one route."""
    by_path: dict[str, dict[str, Api]] = {}
    for page in pages:
        for api in page.api:
            by_path.setdefault(api.path, {})[api.method] = api
    return [
        Route(PREFIX + path, _endpoint(methods), methods=list(methods))
        for path, methods in by_path.items()
    ]


def _endpoint(methods: dict[str, Api]) -> Any:
    async def endpoint(request: Request) -> Response:
        api = methods["GET" if request.method == "HEAD" else request.method]
        query = api.query and api.query.model_validate(dict(request.query_params))
        body = api.body and await _body(request, api.body)
        call = Call(request, query, body)
        if inspect.iscoroutinefunction(api.handler):
            found = await api.handler(call)
        else:
            found = await run_in_threadpool(api.handler, call)
        return found if isinstance(found, Response) else JSONResponse(found, api.status)

    return endpoint


async def _body(request: Request, kind: type[BaseModel]) -> BaseModel:
    data = await read_body(request, _BYTES)
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WebError("the body is not JSON", status=400) from error
    try:
        return kind.model_validate(parsed)
    except ValidationError:
        raise
    except RecursionError as error:
        raise WebError("the body has too many levels of brackets", status=400) from error
