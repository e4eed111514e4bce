"""The application: pages, API, static files, and the one handler of errors."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from tunewright.errors import TunewrightError
from tunewright_web.api import PREFIX, api_routes
from tunewright_web.errors import WebError, web_error
from tunewright_web.openapi import openapi
from tunewright_web.pages import PAGES
from tunewright_web.render import error_response
from tunewright_web.web import Web

__all__ = ["make_app"]

_STATIC = Path(__file__).with_name("static")
_KEPT = "public, max-age=31536000, immutable"


def make_app(web: Web) -> Starlette:
    """The application without its guard."""
    web.pages = PAGES
    document = openapi(PAGES)

    async def described(request: Request) -> Response:
        return JSONResponse(document)

    async def unknown(request: Request) -> Response:
        raise HTTPException(404)

    expected = (HTTPException, WebError, TunewrightError, ValidationError)
    app = Starlette(
        routes=[
            *(route for page in PAGES for route in page.routes),
            *api_routes(PAGES),
            Route(f"{PREFIX}/openapi.json", described),
            Mount("/static", _Static(directory=_STATIC)),
            Route("/{path:path}", unknown),
        ],
        # of another Exception Starlette has the server print the traceback
        exception_handlers=dict.fromkeys((*expected, Exception), _shown),
        lifespan=_lifespan,
    )
    app.state.web = web
    return app


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
