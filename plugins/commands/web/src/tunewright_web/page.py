"""A page of the workbench as its module declares it: routes and API routes.

README.md shows how to add one.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tunewright_web.errors import WebError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from tunewright_web.web import Web

__all__ = ["PREFIX", "Api", "Call", "Form", "Page", "get", "post", "read_body", "web_of"]

PREFIX = "/api/v1"  #: of the API
_FORM_BYTES = 4 * 2**20
_FIELDS = 5_000

Form = Mapping[str, str]  #: field → value, the last where a name stands twice


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the API. query and body: instances of the models that the route declares."""

    request: Request
    query: Any = None
    body: Any = None

    @property
    def web(self) -> "Web":
        return web_of(self.request)

    def path(self, name: str) -> str:
        """A parameter of the path."""
        return str(self.request.path_params[name])


@dataclass(frozen=True, slots=True)
class Api:
    """One route below /api/v1; openapi.json describes it.

    handler: gives the JSON value, or a Response. It runs in a thread, unless it is a coroutine
    function. body, query: models of what is sent. status: of the response. media: content type of a
    Response that is not JSON.
    """

    method: str
    path: str
    handler: Callable[[Call], Any]
    summary: str
    body: "type[BaseModel] | None" = None
    query: "type[BaseModel] | None" = None
    status: int = 200
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Page:
    """name: which entry of the navigation is current."""

    name: str
    routes: tuple[BaseRoute, ...] = ()
    api: tuple[Api, ...] = field(default=())


def web_of(request: Request) -> "Web":
    """The workbench that a request belongs to."""
    found: Web = request.app.state.web
    return found


def get(path: str, handler: Callable[[Request], Response]) -> Route:
    """Route of a page. The handler runs in a thread: it may read files."""
    return Route(path, handler, methods=["GET"])


def post(
    path: str,
    handler: Callable[[Request, Form], Response] | Callable[[Request, Form], Awaitable[Response]],
) -> Route:
    """Route of a form that is sent. The handler runs in a thread, unless it is a coroutine."""

    async def endpoint(request: Request) -> Response:
        form = await _form(request)
        if inspect.iscoroutinefunction(handler):
            return await handler(request, form)  # type: ignore[no-any-return]
        return await run_in_threadpool(handler, request, form)  # type: ignore[arg-type]

    return Route(path, endpoint, methods=["POST"])


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    data = await read_body(request, _FORM_BYTES)
    if data and kind != "application/x-www-form-urlencoded":
        raise WebError(f"expected a form, found {kind or 'no content type'!r:.80}", status=415)
    try:
        text = data.decode("utf-8")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS, errors="strict")
    except ValueError as error:
        raise WebError("the form is damaged") from error
    return dict(pairs)


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes. Raises WebError."""
    too_large = WebError(f"the request has over {limit} bytes", status=413)
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 16 and int(length) > limit:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise too_large
    return bytes(data)
