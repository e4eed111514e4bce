"""Access: a token, and no page of another site (DNS rebinding, cross-site requests)."""

import functools
import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from tunewright_serve.errors import ApiError, error_response

__all__ = ["WITHOUT_TOKEN", "Gate", "headers_of"]

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
            if problem := self._problem(headers_of(scope), scope["path"]):
                await error_response(problem, scope["path"])(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        else:  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})

    def _problem(self, headers: dict[bytes, bytes], path: str) -> ApiError | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not _is_own(host, self.hosts):
            hint = "give its name with --allow-host"
            return ApiError(
                f"the Host header {host!r:.100} is not this server ({hint})", status=403
            )
        origin = headers.get(b"origin")
        if origin is not None and _site(origin) != host.lower():
            return ApiError("requests from pages of other sites are refused", status=403)
        if self.token is None or path in WITHOUT_TOKEN:
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        given = given if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        if hmac.compare_digest(given.strip(), self.token.encode()):
            return None
        return ApiError(
            "the token is missing or wrong: send it as `Authorization: Bearer TOKEN`",
            status=401,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Headers of a request by name in lower case; of one that is repeated, the first."""
    return dict(reversed(scope["headers"]))


def _site(origin: bytes) -> str:
    return urlsplit(origin.decode("latin-1")).netloc.lower()


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
