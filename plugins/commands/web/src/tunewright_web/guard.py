"""Access: a token, no page of another site, and headers that let a page load nothing foreign."""

import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewright_web.errors import WebError

__all__ = ["POLICY", "Guard"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # not no-referrer: with it browsers send `Origin: null` with a form
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_READS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Guard:
    """ASGI middleware that lets requests through, or refuses them.

    cookie: its name, which holds the port: browsers send cookies of one port to all. hosts: names
    of this server besides localhost. prefix: path below which a proxy shows the server, without a
    slash at its end; a request may come with it or without. refuse: makes the response.
    """

    app: ASGIApp
    refuse: Callable[[Request, WebError], Response]
    token: str
    cookie: str
    hosts: tuple[str, ...] = ()
    prefix: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        scope = self._with_prefix(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if (response := self._first_visit(scope)) is not None:
            await response(scope, receive, with_headers)
            return
        if (refusal := self._refusal(scope)) is not None:
            await self.refuse(Request(scope), refusal)(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)

    def _with_prefix(self, scope: Scope) -> Scope:
        path = scope["path"]
        if not path.startswith(f"{self.prefix}/"):
            path = self.prefix + path
        return {**scope, "root_path": self.prefix, "path": path}

    def _first_visit(self, scope: Scope) -> Response | None:
        """The printed address holds the token: it becomes a cookie, and leaves the address."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is None or scope["method"] != "GET" or not self._is_token(given):
            return None
        if not self._is_own(Headers(scope=scope).get("host", "")):
            return None
        kept = urlencode([pair for pair in query if pair[0] != "token"])
        # one slash: with two, a browser would read the path as a host
        path = "/" + quote(scope["path"].lstrip("/\\"), safe="/%")
        response = RedirectResponse(path + (f"?{kept}" if kept else ""), 303)
        response.set_cookie(
            self.cookie, self.token, httponly=True, samesite="strict", path=self.prefix or "/"
        )
        return response

    def _refusal(self, scope: Scope) -> WebError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host):
            hint = "give its name with --allow-host"
            return WebError(f"the Host header {host!r:.100} is not this server", hint, status=421)
        if scope["method"] not in _READS and self._is_foreign(headers, host):
            return WebError("requests from pages of other sites are refused", status=403)
        is_public = scope["path"].startswith(f"{self.prefix}/static/")
        if is_public or self._is_known(headers):
            return None
        hint = "open the address that `tunewright web` printed; programs send it as "
        hint += "`Authorization: Bearer TOKEN`"
        return WebError("the token is missing or wrong", hint, status=401)

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme:
            return scheme.lower() == "bearer" and self._is_token(given.strip())
        return self._is_token(cookie_parser(headers.get("cookie", "")).get(self.cookie, ""))

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _is_foreign(self, headers: Headers, host: str) -> bool:
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return True
        origin = headers.get("origin")
        if origin is None:
            return False
        try:
            parts = urlsplit(origin)
        except ValueError:
            return True
        return parts.netloc.lower() != host.lower() and (parts.hostname or "") not in self.hosts

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in ("localhost", *self.hosts):
            return True
        try:
            ipaddress.ip_address(name)  # a page that rebinds its name to this machine sends a name
        except ValueError:
            return False
        return True
