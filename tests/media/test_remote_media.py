"""Media that requests name by address: fetched from hosts on a list, and from no other place."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import ImageOps

from media.media_cases import Subject
from media.test_generation import prepared
from media.test_serving import PICTURE, asked, engine_of, logprobs, pictured, png
from serve.serving import Running, served
from tunewright_serve import fetching
from tunewright_serve.fetching import allowed, checked_host, is_public

HOST = "images.example"


class Files(BaseHTTPRequestHandler):
    """What the host of the pictures answers, by path."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        data = png(ImageOps.invert(PICTURE) if self.path == "/other.png" else PICTURE)
        if self.path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
            return
        self.send_response(200)
        if self.path == "/packed.png":
            self.send_header("Content-Encoding", "gzip")
        length = 10**10 if self.path == "/large.png" else len(data) + 5 * (self.path == "/cut.png")
        if self.path not in ("/endless.png", "/slow.png"):
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.path == "/slow.png":
            for _ in range(12):
                self.wfile.write(data[:1])
                time.sleep(0.1)
        elif self.path == "/endless.png":
            for _ in range(100):
                self.wfile.write(b"\0" * 1000)
        else:
            self.wfile.write(data)

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients go where they have seen enough
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    Files.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def case() -> Subject:
    return prepared("qwen", "qwen2_vl")


@pytest.fixture(scope="module")
def running(case: Subject, port: int) -> Iterator[Running]:
    hosts = frozenset([f"{HOST}:{port}"])
    with served(engine_of(case), info=case.template.info, media_hosts=hosts) as made:
        yield made


def named(port: int, path: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"http://{HOST}:{port}/{path}"}}


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's name leads to this machine, whose address counts as a public one."""
    own = socket.getaddrinfo

    def found(host: Any, port: Any, *args: Any, **how: Any) -> Any:
        return own("127.0.0.1" if host == HOST else host, port, *args, **how)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")


@pytest.mark.usefixtures("resolved")
def test_a_picture_is_fetched(running: Running, port: int) -> None:
    found = logprobs(asked(running, named(port, "a.png")))
    assert found == pytest.approx(logprobs(asked(running, pictured(PICTURE))), abs=1e-4)
    other = logprobs(asked(running, named(port, "other.png")))
    assert other != pytest.approx(found, abs=1e-3)


@pytest.mark.usefixtures("resolved")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("moved.png", "answered with status 302"),
        ("packed.png", "sent a compressed answer"),
        ("large.png", "sent more than"),
        ("endless.png", "sent more than"),
        ("slow.png", "took more than 0.7 seconds"),
        ("cut.png", "sent no whole file"),
    ],
)
def test_limits(
    path: str, said: str, running: Running, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 60_000)
    monkeypatch.setattr(fetching, "MAX_SECONDS", 0.7)
    reply = asked(running, named(port, path))
    assert reply.status == 400 and said in reply.error["message"], reply.data


def test_only_public_addresses(running: Running, port: int, monkeypatch: Any) -> None:
    """One private address among public ones is enough. Nothing is asked for."""
    before = list(Files.asked)
    public, private = ("93.184.215.14", port), ("10.0.0.1", port)
    for places in ([("127.0.0.1", port)], [public, private], [("::ffff:127.0.0.1", port, 0, 0)]):
        found = [(0, 0, 0, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
        with monkeypatch.context() as inner:
            inner.setattr(socket, "create_connection", None)  # is not called
            with pytest.raises(Exception, match="has an address that is not public"):
                fetching._public_address(HOST, port)
    assert Files.asked == before


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.1.2.3", "10.1.2.3", "100.64.0.1", "169.254.169.254", "192.168.0.1"),
        *("::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1%eth0"),
        *("fc00::1", "2001:0:53aa:64c::1", "224.0.0.1", "ff02::1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("93.184.215.14") and is_public("2606:4700::1111")


@pytest.mark.parametrize(
    "url",
    [
        *("http://other.example/a.png", "http://127.0.0.1/a.png", "file:///etc/passwd"),
        *("gopher://images.example/", "/etc/passwd", "//images.example/a.png"),
        *("http://images.example\\@127.0.0.1/", "http://a@images.example/", "http://a@b@c"),
        *("http://images.example:22/", "http://images.example./a.png", "http://2130706433/"),
        *("http://images.example/a\r\nX: y", "http://images。example/", "http://[::1]/"),
    ],
)
def test_addresses_that_are_not_on_the_list(url: str, running: Running) -> None:
    assert allowed("https://Images.example/a.png?b=c", {HOST})
    assert not allowed(url, {HOST}) and not allowed(url, ())
    part = {"type": "image_url", "image_url": {"url": url}}
    reply = asked(running, part)
    assert reply.status == 400 and "is to be a data: URL" in reply.error["message"]


def test_hosts_of_the_list() -> None:
    assert checked_host(" Images.Example.com:8080 ") == "images.example.com:8080"
    for wrong in ("http://a.com", "a.com/b", "127.0.0.1", "*", "", "a b", "[::1]"):
        with pytest.raises(ValueError, match="expected a host"):
            checked_host(wrong)
