"""Access: a token, and no page of another site (DNS rebinding, cross-site requests)."""

import functools
import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tunewright_serve.errors import ApiError, error_response

__all__ = ["WITHOUT_TOKEN", "Gate"]

WITHOUT_TOKEN = ("/health", "/ready")  # for load balancers


@dataclass(frozen=True, slots=True)
class Gate:
    """ASGI middleware that lets requests through, or answers 401 or 403.

    token: None lets everybody in. hosts: names of this server besides localhost. An address as Host
    is always right: a page that rebinds its name to this machine sends that name.
    """

    app: ASGIApp
    token: str | None
    hosts: tuple[str, ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            if problem := self._problem(Headers(scope=scope), scope["path"]):
                await error_response(problem, scope["path"])(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        else:  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})

    def _problem(self, headers: Headers, path: str) -> ApiError | None:
        host = headers.get("host", "")
        if not _is_own(host, self.hosts):
            hint = "give its name with --allow-host"
            return ApiError(
                f"the Host header {host!r:.100} is not this server ({hint})", status=403
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return ApiError("requests from pages of other sites are refused", status=403)
        if self.token is None or path in WITHOUT_TOKEN:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if hmac.compare_digest(given.strip().encode(), self.token.encode()):
            return None
        return ApiError(
            "the token is missing or wrong: send it as `Authorization: Bearer TOKEN`",
            status=401,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


@functools.lru_cache(64)  # few are true; others may be anything
def _is_own(host: str, own: tuple[str, ...]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name.rstrip(".") in ("localhost", *own):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
