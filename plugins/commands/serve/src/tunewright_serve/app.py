"""The routes, and what is done around each: body, errors, metrics, clients that leave."""

import time
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tunewright_serve import routes
from tunewright_serve.auth import WITHOUT_TOKEN
from tunewright_serve.body import read_body
from tunewright_serve.errors import ApiError, api_error, error_response, validation_error
from tunewright_serve.openapi import openapi
from tunewright_serve.service import Service
from tunewright_serve.sse import ClientGone, EventStream, Json

__all__ = ["make_app"]

_GETS = {
    "/v1/models": "application/json",
    "/v1/models/{name}": "application/json",
    "/health": "application/json",
    "/ready": "application/json",
    "/metrics": "text/plain",
    "/openapi.json": "application/json",
}


def make_app(service: Service) -> ASGIApp:
    """The routes as an ASGI app. Those that take a body are called as they are: Starlette's
    middleware and router would cost as much as all of their work."""
    posts = {
        path: _Post(service, path, body, handler) for path, (body, handler) in routes.POSTS.items()
    }
    others = _starlette(service, posts)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        found = posts.get(scope["path"], others) if is_post else others
        await found(scope, receive, send)

    return app


def _starlette(service: Service, posts: dict[str, "_Post"]) -> Starlette:
    bodies = {path: post.body for path, post in posts.items()}
    document = openapi(bodies, _GETS, WITHOUT_TOKEN)

    async def models(request: Request) -> Response:
        data = [_model(service, name) for name in service.names]
        return Json({"object": "list", "data": data})

    async def model(request: Request) -> Response:
        return Json(_model(service, service.model(request.path_params["name"])[0]))

    async def health(request: Request) -> Response:
        return Json({"status": "ok"})

    async def ready(request: Request) -> Response:
        state = "draining" if service.draining else "ready"
        return Json({"status": state}, 503 if service.draining else 200)

    async def metrics(request: Request) -> Response:
        text = service.metrics.text(service.engine.stats())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def described(request: Request) -> Response:
        return Json(document)

    return Starlette(
        routes=[
            *(Route(path, post, methods=["POST"]) for path, post in posts.items()),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", described),
        ],
        exception_handlers={
            HTTPException: _http_error,
            ApiError: _shown,
            Exception: _shown,
        },
    )


def _model(service: Service, name: str) -> dict[str, Any]:
    """A model as OpenAI's wire has it, with max_model_len as vLLM gives it, and what the engine can
    do."""
    engine = service.engine
    more = {"max_model_len": engine.max_length, "features": sorted(engine.features)}
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "tunewright"} | more


_STARTED = int(time.time())


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    message = {404: f"there is no route {path!r:.200}", 405: f"{path} takes no {request.method}"}
    text = message.get(error.status_code, error.detail)
    made = ApiError(text, status=error.status_code, headers=dict(error.headers or {}))
    return error_response(made, path)


async def _shown(request: Request, error: Exception) -> Response:
    return error_response(api_error(error), request.url.path)


@dataclass(frozen=True)
class _Post:
    """ASGI endpoint of a route that takes a body."""

    service: Service
    path: str
    body: TypeAdapter[Any]
    handler: routes.Handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 499  # as nginx notes clients that left
        metrics = self.service.metrics
        try:
            with scope["state"]["connection"]:
                try:  # nothing has been sent yet: an error is a response
                    body = await read_body(scope, receive, self.body, self.service.limits)
                    answer = await self.handler(self.service, body)
                except ClientGone:
                    raise
                except Exception as error:
                    answer = self._refused(error)
                status = answer.status_code
                if isinstance(answer, EventStream):
                    metrics.began(self.path, time.perf_counter() - began)
                await answer(scope, receive, send)
        except (ClientGone, OSError):
            metrics.gone += 1
        finally:
            metrics.finished(self.path, status, time.perf_counter() - began)

    def _refused(self, error: Exception) -> Response:
        if isinstance(error, ValidationError):  # of a message that was made from another wire's
            return error_response(validation_error(error, set()), self.path)
        return error_response(api_error(error), self.path)
