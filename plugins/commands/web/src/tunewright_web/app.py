"""The application: pages, API, static files, and the one handler of errors."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from tunewright.errors import TunewrightError
from tunewright_web.errors import WebError, web_error
from tunewright_web.page import PREFIX
from tunewright_web.pages import all_pages, pages_of
from tunewright_web.render import error_response
from tunewright_web.web import Web
from tunewright_web.work import end_all

__all__ = ["make_app"]

_STATIC = Path(__file__).with_name("static")
_KEPT = "public, max-age=31536000, immutable"


def make_app(web: Web) -> Starlette:
    """The application without its guard."""
    app = Starlette(
        routes=[
            Route(f"{PREFIX}/openapi.json", _described),
            Mount("/static", _Static(directory=_STATIC)),
            Route("/{path:path}", _Pages()),
        ],
        # of another Exception Starlette has the server print the traceback
        exception_handlers=dict.fromkeys(
            (HTTPException, WebError, TunewrightError, Exception), _shown
        ),
        lifespan=_lifespan,
    )
    app.state.web = web
    return app


class _Pages:
    """ASGI application that imports the pages of an address at the first request for it."""

    def __init__(self) -> None:
        self._routers: dict[tuple[str, bool], Router] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_api = path.startswith(f"{PREFIX}/")
        key = path.removeprefix(PREFIX if is_api else "").split("/")[1], is_api
        if key not in self._routers:
            routes = await run_in_threadpool(_routes, *key)
            if not routes:
                raise HTTPException(404)
            self._routers[key] = Router(routes, redirect_slashes=False)
        try:
            await self._routers[key](scope, receive, send)
        except ValueError as error:  # pydantic's is one, and known here without its import
            found = web_error(error)
            if found.status == 500:
                raise
            raise found from error


def _routes(first: str, is_api: bool) -> list[BaseRoute]:
    pages = pages_of(first, api=is_api)
    if not is_api:
        return [route for page in pages for route in page.routes]
    from tunewright_web.api import api_routes

    return [*api_routes(pages)]


def _described(request: Request) -> Response:
    from tunewright_web.openapi import openapi

    return JSONResponse(openapi(all_pages()))


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Start jobs that wait, while the server runs."""

    async def start_due() -> None:
        while True:
            try:
                await run_in_threadpool(app.state.web.jobs.start_due)
            except Exception:  # such as a full disk: it is tried again
                logging.getLogger(__name__).exception("a job could not be started")
            await asyncio.sleep(1)

    task = asyncio.create_task(start_due())
    yield
    task.cancel()
    end_all()


class _Static(StaticFiles):
    """Files whose address holds a version may be kept. The others are asked for again: modules
    import each other by their plain names, since two addresses would be two modules."""

    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        kept = scope["query_string"].startswith(b"v=")
        response.headers["Cache-Control"] = _KEPT if kept else "no-cache"
        return response


async def _shown(request: Request, error: Exception) -> Response:
    return error_response(request, web_error(error))
