"""Checks 52 to 54: other hosts and sites, names that lead elsewhere, and proxies."""

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, expect

from browser.driver import opened
from browser.workbench import Workbench


def raw(workbench: Workbench, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Status and body; with the token, unless a header Authorization is given."""
    connection = HTTPConnection("127.0.0.1", workbench.port, timeout=30)
    given = {"Authorization": f"Bearer {workbench.token}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    try:
        connection.request(method, path, b"" if method == "POST" else None, given)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_52_other_hosts_and_sites_are_refused(workbench: Workbench) -> None:
    assert raw(workbench, "GET", "/", Host="evil.example")[0] == 421
    assert raw(workbench, "GET", "/", Host=f"evil.example:{workbench.port}")[0] == 421
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://localhost:{workbench.port + 1}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert raw(workbench, "POST", "/chat", **headers)[0] == 403, headers


class _Page(BaseHTTPRequestHandler):
    target = ""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        form = f'<form method="post" action="{self.target}"><button>Win</button></form>'
        self.wfile.write(form.encode())

    def log_message(self, *_: object) -> None:
        """Be silent."""


@contextmanager
def site(target: str) -> Iterator[str]:
    """A page of another origin, with a form that is sent to the target. Gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Page", (_Page,), {"target": target}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def test_52_a_form_of_another_origin_does_nothing(browser: Browser, workbench: Workbench) -> None:
    with opened(browser, workbench.address) as found, site(f"{workbench.address}/chat") as address:
        workbench.enter(found.page)
        before = workbench.api("/chats")
        found.page.goto(address)
        with found.page.expect_response(f"{workbench.address}/chat") as answer:
            found.page.get_by_role("button").click()
        assert answer.value.status in (401, 403)
        assert workbench.api("/chats") == before


ESCAPES = (
    "..",
    "../x",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f",
    "%2e%2e",
    "..\\..\\x",
    "%00",
    "a%00b",
    "%2fetc%2fpasswd",
    ".",
    "....//",
    "%c0%ae%c0%ae%2f",
    ".tunewright",
    "x" * 300,
)


def test_53_no_name_leads_out_of_the_workspace(workbench: Workbench) -> None:
    _, document = workbench.api("/openapi.json")
    paths = [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if "{" in path
    ]
    assert len(paths) > 8
    for (method, path), escape in itertools.product(paths, ESCAPES):
        address = re.sub(r"\{\w+\}", "{}", path).replace("{}", escape)
        status, body = raw(workbench, method, address)
        assert 400 <= status < 500, (method, path, escape, status, body[:200])
    places = ("/runs/{}", "/chat/{}", "/chat/{}/media/{}", "/evaluate/{}/{}/chart.png", "/jobs/{}")
    for place, escape in itertools.product(places, ESCAPES):
        status, body = raw(workbench, "GET", place.replace("{}", escape))
        assert 400 <= status < 500, (place, escape, status, body[:200])
        assert b"root:" not in body


@pytest.mark.parametrize("cursor", ["x", "-1", "0", "%00", "1.1.1", "é"])
def test_53_bad_cursors_are_refused(workbench: Workbench, cursor: str) -> None:
    path = f"/api/v1/runs/greeter/metrics?after={quote(cursor, safe='%')}"
    status, body = raw(workbench, "GET", path)
    assert 400 <= status < 500, (status, body[:200])


# ---- proxies, and no JavaScript ------------------------------------------------------------------


class _Proxy(BaseHTTPRequestHandler):
    """Passes /proxy/7860/… on, as Jupyter's proxy does; everything else is refused."""

    port = 0
    seen: list[str] = []  # noqa: RUF012 - set anew in each subclass
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._pass("GET")

    def do_POST(self) -> None:
        self._pass("POST")

    def _pass(self, method: str) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length) if length else None
        if not self.path.startswith("/proxy/7860/"):
            self.seen.append(self.path)
            self.send_error(404)
            return
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, self.path.removeprefix("/proxy/7860"), body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.mark.slow
def test_54_behind_a_proxy_with_a_prefix(
    browser: Browser, own_workbench: Callable[..., Workbench]
) -> None:
    server = own_workbench("--root-path", "/proxy/7860/")
    seen: list[str] = []
    handler: Any = type("Proxy", (_Proxy,), {"port": server.port, "seen": seen})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{proxy.server_port}/proxy/7860"
    try:
        with opened(browser, address) as found:
            page = found.page
            page.goto(f"{address}/?token={server.token}")
            expect(page.get_by_role("link", name="greeter", exact=True)).to_be_visible()
            page.get_by_role("link", name="greeter", exact=True).click()
            page.wait_for_url(f"{address}/runs/greeter")
            expect(page.locator("#charts canvas").first).to_be_visible()
            hrefs = page.locator("a[href], link[href], script[src], form[action]").evaluate_all(
                "all => all.map(each => each.href || each.src || each.action)"
            )
            wrong = [each for each in hrefs if not urlsplit(each).path.startswith("/proxy/7860")]
            assert not wrong, wrong
            page.goto(f"{address}/settings")
            page.get_by_label("Language").select_option("zh")
            page.get_by_role("button", name="Save").click()
            expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
            assert page.url == f"{address}/settings"
            found.assert_quiet()
        assert not seen, seen
    finally:
        proxy.shutdown()
        proxy.server_close()
